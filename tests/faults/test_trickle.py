"""A stream of one example at a time, whose segments are put together while it goes on and a server is killed."""

from __future__ import annotations

from typing import Any

from graft.v1 import adaptation_pb2, types_pb2

MOST = 3_000
"""Examples: far more than it takes until segments are put together, however slow the encoder is."""


def named(n: int, text: str, label: str) -> adaptation_pb2.ExampleChange:
    example = types_pb2.Example(id=f"row-{n}", input=types_pb2.Input(text=text), label=label)
    return adaptation_pb2.ExampleChange(upsert=example)


def learned(wire: Any, changes: int, text: str) -> Any:
    """The interim head's answer, once it has learned so many changes."""
    while True:
        answer = wire.predict("tests/m", [text], adaptation_id="a")
        if answer.next_sequence == changes:
            return answer.results[0].single_label


def test_a_stream_goes_on_while_its_segments_are_put_together(serve, connect, few):
    server = serve()
    wire = connect(server)
    call = wire.adapt(model="tests/m", adaptation_id="a")
    segments = server.store / "models/tests/m/_/adaptations/a/writers/default"
    sent = 0
    while not any(it.stem.count("-") for it in segments.glob("*.seg")):
        assert sent < MOST
        text, label = few[sent % len(few)]
        call.examples(sent, [named(sent, f"{text} {sent}", label)])
        sent += 1
        call.accepted(sent)
        if sent == len(few):
            learned(wire, sent, "the lock")
    # A correction of an example that is somewhere else now: the interim head takes back what it said.
    assert learned(wire, sent, few[0][0]).scores[0].label == "lock"
    call.examples(sent, [named(0, "an umbrella", "lost property")])
    call.accepted(sent + 1)
    assert learned(wire, sent + 1, "an umbrella").scores[0].label == "lost property"
    server.kill()

    wire = connect(serve())
    call = wire.adapt(model="tests/m", adaptation_id="a")
    assert call.next("started").next_sequence == sent + 1
    call.examples(sent - 1, [named(sent - 1, f"{text} {sent - 1}", label)])  # the last one once more
    assert learned(wire, sent + 1, "an umbrella").scores[0].label == "lost property"
    call.commit(close=True)
    assert call.next("published").summary.examples == sent
