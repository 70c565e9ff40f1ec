"""Which commit is carried out next, and which others its outcome answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graft_server.adapting.publishing.queue import next_run
from graft_server.domain.adaptation import Commit


def commits(**watermarks: dict[str, int]) -> dict[str, Commit]:
    return {
        name: Commit(name, reached, close=False, time=datetime(2026, 1, 2, tzinfo=UTC))
        for name, reached in watermarks.items()
    }


@pytest.mark.parametrize(
    ("known", "queue", "expected"),
    [
        ({"a": {"w": 3}}, "a", ("a", [])),
        ({"a": {"w": 3}, "b": {"w": 3}, "c": {"w": 5}}, "abc", ("c", ["a", "b"])),
        # A writer that the newer one does not have: it does not cover the older one.
        ({"a": {"w": 3, "x": 1}, "b": {"w": 5}}, "ab", ("a", [])),
        ({"a": {"w": 3, "x": 1}, "b": {"w": 5}, "c": {"w": 4, "x": 1}}, "abc", ("c", ["a"])),
        ({"a": {"w": 3}, "b": {"w": 9}, "c": {"w": 5}}, "abc", ("c", ["a"])),
        ({"a": {"w": 3, "x": 0}, "b": {"w": 3}}, "ab", ("b", ["a"])),
    ],
)
def test_the_newest_that_covers_the_oldest_runs_and_answers_those_that_it_covers(known, queue, expected):
    assert next_run(list(queue), commits(**known)) == expected
