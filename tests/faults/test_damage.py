"""Objects of each kind that are cut short, or have a bit turned: what is said of them, and what serves on.

Each kind has two models of its own, one object of which is damaged; then one server starts on all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from graft.v1 import adaptation_pb2, model_pb2

SOUND = "tests/sound"


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 16]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {"truncated": truncated, "flipped": flipped}


def resume(wire: Any, model: str) -> Any:
    return list(wire.adapt(model=model, adaptation_id="a").responses)


def describe(wire: Any, model: str) -> Any:
    return wire.adaptation.GetAdaptation(
        adaptation_pb2.GetAdaptationRequest(model=model, adaptation_id="a"), timeout=60
    )


def watch(wire: Any, model: str) -> Any:
    watched = adaptation_pb2.WatchAdaptationRequest(model=model, adaptation_id="a")
    return list(wire.adaptation.WatchAdaptation(watched, timeout=60))


def predict(wire: Any, model: str) -> Any:
    return wire.predict(model, ["the lock"])


def version(wire: Any, model: str) -> Any:
    return wire.model.GetVersion(model_pb2.GetVersionRequest(model=model, version=1), timeout=60)


def export(wire: Any, model: str) -> Any:
    return list(wire.model.ExportModel(model_pb2.ExportModelRequest(model=model), timeout=60))


KINDS: dict[str, tuple[str, Callable[[Any, str], Any]]] = {
    "start": ("adaptations/a/start.json", describe),
    "segment": ("adaptations/a/writers/default/*.seg", resume),
    "generation": ("adaptations/a/generations/*.json", describe),
    "commit": ("adaptations/a/commits/*.json", describe),
    "closing": ("adaptations/a/closing.json", describe),
    "outcome": ("adaptations/a/outcomes/*.json", describe),
    "event": ("adaptations/a/events/*1.json", watch),
    "manifest": ("versions/*/manifest.json", predict),
    "head": ("versions/*/head.bin", predict),
    "graph": ("versions/*/head.onnx", export),
    "report": ("versions/*/report.json", version),
}
"""Of each kind of object that nothing else can stand in for: where it is, and a call that needs it."""
FEATURES = "adaptations/a/features/*/default/*.bin"


def the_object(store: Path, model: str, pattern: str) -> Path:
    (found,) = (store / "models" / model / "_").glob(pattern)
    return found


def damage(store: Path, model: str, pattern: str, how: str) -> None:
    path = the_object(store, model, pattern)
    path.write_bytes(DAMAGES[how](path.read_bytes()))


@pytest.fixture(scope="module")
def store(encoder_cache, tmp_path_factory, serving, few) -> Path:
    """A store of which each kind of object is damaged somewhere."""
    folder: Path = tmp_path_factory.mktemp("damaged") / "store"
    names = {(kind, how): f"tests/{kind}-{how}" for kind in (*KINDS, "features") for how in DAMAGES}
    with serving(store=folder) as wire:
        wire.publish(SOUND, few)
        for (kind, _), model in names.items():
            call = wire.adapt(model=model, adaptation_id="a")
            call.examples(0, few)
            call.commit("first", close=kind == "closing")
            call.next("published")
            if kind == "generation":
                first = examples_of(wire, model)[0].example.id
                wire.model.DeleteExamples(
                    model_pb2.DeleteExamplesRequest(model=model, ids=[first]), timeout=60
                )
    for (kind, how), model in names.items():
        damage(folder, model, KINDS[kind][0] if kind in KINDS else FEATURES, how)
    return folder


def examples_of(wire: Any, model: str) -> Any:
    return wire.model.ListExamples(model_pb2.ListExamplesRequest(model=model), timeout=60).examples


@pytest.fixture(scope="module")
def wire(store, serving) -> Iterator[Any]:
    """The server that starts on it."""
    with serving(store=store) as it:
        yield it


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_object_is_named_and_concerns_what_needs_it_alone(kind, how, wire, store):
    pattern, call = KINDS[kind]
    model = f"tests/{kind}-{how}"
    key = the_object(store, model, pattern).relative_to(store).as_posix()
    with pytest.raises(grpc.RpcError) as raised:
        call(wire, model)
    failure = wire.failure(raised.value)
    assert failure.code is grpc.StatusCode.DATA_LOSS
    assert (failure.reason, failure.metadata["object"]) == ("OBJECT_CORRUPT", key)
    assert key in failure.message
    assert predict(wire, SOUND).version == 1
    if call is not predict:
        assert predict(wire, model).version == 1


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_features_are_computed_again(how, wire, few):
    model = f"tests/features-{how}"
    call = wire.adapt(model=model, adaptation_id="a")
    call.examples(call.next("started").next_sequence, [("one more lock", "lock")])
    call.commit(close=True)
    assert call.next("published").summary.examples == len(few) + 1


def test_a_damaged_entry_of_the_catalogue_is_named_and_the_rest_serves(serving, tmp_path, few):
    folder = tmp_path / "store"
    with serving(store=folder) as wire:
        wire.publish("tests/before", few)
        wire.publish("tests/after", few)
    entry = folder / "catalogue" / f"{1:020d}.json"
    entry.write_bytes(flipped(entry.read_bytes()))
    with serving(store=folder) as wire:
        assert predict(wire, "tests/after").version == 1
        call = wire.adapt(model="tests/after")
        call.examples(0, few)
        call.commit()
        failure = wire.failure(call.next("publication_failed").status)
        assert failure.code is grpc.StatusCode.DATA_LOSS
        assert failure.metadata["object"] == entry.relative_to(folder).as_posix()
