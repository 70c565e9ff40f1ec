"""Remembered answers are those that would be given anew."""

from __future__ import annotations

import graft
from graft_server.serving.response_cache import ResponseCache


def test_the_entry_that_was_not_used_for_longest_goes_first() -> None:
    cache: ResponseCache[int] = ResponseCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert len(cache) == 2


def test_a_cache_of_no_entries_keeps_nothing() -> None:
    cache: ResponseCache[int] = ResponseCache(0)
    cache.put("a", 1)
    assert cache.get("a") is None


def test_answers_from_the_cache_are_those_of_the_model_and_follow_its_versions(serve, intents) -> None:
    server = serve("--cached-responses", "100")
    texts = ["the lock is stuck", "you charged me twice", "the lock is stuck"]
    with graft.Client(server.target) as client:
        first = client.adapt("cached", intents[:120])
        asked = client.predict("cached", texts)
        again = client.predict("cached", texts)
        assert [it.scores for it in again] == [it.scores for it in asked]
        more = client.predict("cached", texts, top_k=2)
        assert all(len(it.scores) == 2 for it in more)
        assert client.predict("cached", ["", texts[0]])[1].scores == asked[0].scores

        second = client.adapt(
            "cached", [(text, "other" if n % 2 else "one") for n, (text, _) in enumerate(intents)]
        )
        assert second.version == first.version + 1
        assert {it.label for it in client.predict("cached", texts)} <= {"other", "one"}
