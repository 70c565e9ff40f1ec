"""Metadata and versions that cannot be sent are refused where they are given."""

from __future__ import annotations

from typing import Any

import pytest

from graft._client import operations
from graft._records.metadata import checked_metadata
from graft._streams.adapt import Limits
from graft._streams.options import AdaptOptions
from graft._streams.start import new_exchange


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ("a=b", "metadata is 'a=b', of type str: give a mapping of texts to texts"),
        ([("a", "b")], "of type list: give a mapping"),
        ({"a": 1}, "metadata['a'] is 1, of type int: give a text, such as '1'"),
        ({"a": None}, "metadata['a'] is None, of type NoneType"),
        ({1: "a"}, "metadata has the key 1, of type int: give a text"),
    ],
)
def test_metadata_that_is_no_pairs_of_texts_is_a_type_error(pairs: Any, said: str) -> None:
    with pytest.raises(TypeError) as raised:
        new_exchange("m", AdaptOptions(metadata=pairs), Limits())
    assert said in str(raised.value)


def test_a_pair_without_a_value_is_removed() -> None:
    assert checked_metadata({"a": None, "b": "c"}, removable=True) == {"a": None, "b": "c"}
    request: Any = next(operations.set_metadata("m", {"a": None, "b": "c"})).request
    assert (dict(request.set_metadata), list(request.remove_metadata)) == ({"b": "c"}, ["a"])
    with pytest.raises(TypeError, match="of type int"):
        next(operations.set_metadata("m", {"a": 1}))  # type: ignore[dict-item]


def test_a_start_says_only_what_is_asked_for() -> None:
    start: Any = new_exchange("m", AdaptOptions(adaptation_id="a"), Limits())._start
    assert not start.HasField("publish")
    start = new_exchange("m", AdaptOptions(promote=False, metadata={"a": "b"}), Limits())._start
    assert (start.publish.HasField("promote"), start.publish.promote, dict(start.metadata)) == (
        True,
        False,
        {"a": "b"},
    )
    start = new_exchange("m", AdaptOptions(publish_every=5), Limits())._start
    assert (start.publish.every_examples, start.publish.HasField("promote")) == (5, False)


def test_an_alias_is_pointed_at_a_number_or_at_the_latest() -> None:
    request: Any = next(operations.set_alias("m", "live", "latest", None)).request
    assert (request.version, request.latest) == (0, True)
    request = next(operations.set_alias("m", "live", 3, 2)).request
    assert (request.version, request.latest, request.expected_version) == (3, False, 2)
    with pytest.raises(ValueError, match="give a number, or 'latest'"):
        next(operations.set_alias("m", "live", "newest", None))
