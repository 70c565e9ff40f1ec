"""Streams that bring more than the server takes in at once."""

from __future__ import annotations

from typing import Any

LONG = "the lock is stuck again and again " * 6_000
"""204 kB, of which the encoder reads the beginning."""
BATCHES, BATCH = 2, 4


def pour(call: Any, number: int) -> None:
    """Sends more than a MiB, and a commit behind it."""
    for batch in range(BATCHES):
        rows = [(f"{number} {batch} {n} {LONG}", ("lock", "bill")[n % 2]) for n in range(BATCH)]
        call.examples(batch * BATCH, rows)
    call.commit(close=True)


def test_streams_that_nobody_reads_share_what_room_there_is_and_all_come_to_their_end(
    serve: Any, connect: Any, model: str, few: list[tuple[str, str]]
) -> None:
    server = serve("--intake-memory-mb", "1")
    greedy, other = connect(server), connect(server)
    calls = [greedy.adapt(model=f"{model}/{number}") for number in range(4)]
    for number, call in enumerate(calls):
        pour(call, number)
    # Nothing has been read yet, and others are served.
    assert other.publish(model, few).version == 1
    assert other.predict(model, ["the lock is stuck"]).results[0].single_label.scores[0].label == "lock"
    for call in calls:
        (published,) = call.outcomes()
        assert published.summary.examples == BATCHES * BATCH
