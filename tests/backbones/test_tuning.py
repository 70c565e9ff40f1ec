"""The job that tunes: what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graft_server.backbones import scratch
from graft_server.backbones.cache import EncoderCache
from graft_server.backbones.cutting import boundary_of, cut
from graft_server.backbones.scratch import Part, Scratch
from graft_server.backbones.source import Backbone
from graft_server.backbones.text import TextTokenizer
from graft_server.encoding.runtime import Encoder

BELOW = 5
"""One layer is tuned."""

Payload = dict[str, Any]


@pytest.fixture(scope="module")
def parts(encoder_cache: Path, backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Payload:
    """Paths of the graphs below and above the cut."""
    graph = onnx.load(str(EncoderCache(encoder_cache).graph(backbone.encoder_id)))
    found = cut(graph, boundary_of(graph, BELOW, backbone.name))
    folder = tmp_path_factory.mktemp("parts")
    onnx.save(found.below, str(folder / "below.onnx"))
    onnx.save(found.above, str(folder / "above.onnx"))
    return {"graph": str(folder / "above.onnx"), "below_graph": str(folder / "below.onnx")}


@pytest.fixture(scope="module")
def start(intents, encoder: Encoder, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The demo's examples, and a head on their classes' means."""
    names = sorted({label for _, label in intents})
    labels = np.array([names.index(label) for _, label in intents], np.int32)
    texts = [text for text, _ in intents]
    tokens = [it.item for it in tokenizer.many(texts)]
    chunks = [tokens[it : it + 16] for it in range(0, len(tokens), 16)]
    features = np.concatenate([encoder.encode(it)["pooled"] for it in chunks]).astype(np.float32)
    weight = np.stack([features[labels == it].mean(axis=0) for it in range(len(names))], axis=1)
    part = np.full(len(labels), Part.TRAIN, np.int8)
    part[::8], part[4::8] = Part.STOP, Part.MEASURE
    bias = np.zeros(len(names), np.float32)
    return {
        "tokens": tokens,
        "labels": labels,
        "weights": np.ones(len(labels)),
        "part": part,
        "head": (10 * weight, bias),
    }


@pytest.fixture
def payload(
    tmp_path: Path, backbone: Backbone, parts: Payload, start: dict[str, Any]
) -> Callable[..., Payload]:
    """Gives the payload of a tuning in a scratch folder of its own."""

    def make(name: str = "scratch", *, examples: dict[str, Any] | None = None, **settings: Any) -> Payload:
        Scratch.write(tmp_path / name, **{**start, **(examples or {})})
        fixed = {"backbone": backbone.payload(), "scratch": str(tmp_path / name), "below": BELOW, **parts}
        return {**fixed, "epochs": 1, **settings}

    return make


def ignore(_told: Any) -> None:
    pass


def made(payload: Payload) -> tuple[bytes, NDArray[np.float32], NDArray[np.float16]]:
    """The tuned graph, head weights and features that a tuning left."""
    folder = Path(payload["scratch"])
    head = np.load(folder / scratch.TUNED_HEAD)["weight"]
    return (folder / scratch.TOP).read_bytes(), head, np.load(folder / scratch.FEATURES)


def losses(result: dict[str, Any]) -> list[tuple[float, float]]:
    return [(it["log_loss"], it["train_loss"]) for it in result["history"]]


def test_the_same_seed_gives_the_same_weights(payload):
    from graft_server.backbones.torch import tuning  # noqa: PLC0415 (torch only where it is needed)

    first, again, other = payload("first", seed=3), payload("again", seed=3), payload("other", seed=4)
    results = [tuning.tune(it, ignore) for it in (first, again, other)]
    assert losses(results[0]) == losses(results[1]) != losses(results[2])
    graph, head, features = made(first)
    assert graph == made(again)[0] != made(other)[0]
    np.testing.assert_array_equal(head, made(again)[1])
    np.testing.assert_array_equal(features, made(again)[2])
