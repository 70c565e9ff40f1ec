"""The shapes in which inputs and examples are handed in: read as they are meant, or refused with what is right."""

from __future__ import annotations

import asyncio
import collections
import enum
import io
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import graft
from graft._client.operations import PredictSettings, Selector, predict
from graft.v1 import prediction_pb2

NOWHERE = "127.0.0.1:1"
"""A server that does not exist: what is refused is refused before anything is sent."""


class Frame:
    """What pandas.DataFrame and polars.DataFrame have in common: columns, whose names iteration gives in pandas."""

    columns = ("text", "id")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Table:
    """What pyarrow.Table is told by."""

    column_names = ("text", "id")

    def __dataframe__(self) -> None:
        raise NotImplementedError


class Series:
    """What pandas.Series and polars.Series have in common: iteration gives the values."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def keys(self) -> range:
        return range(len(self.values))

    def __getitem__(self, place: int) -> Any:
        return self.values[place]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)

    def __array__(self, dtype: object = None, copy: object = None) -> Any:
        raise AssertionError("features are not made of a Series")


class NAType:
    """pandas.NA, which is neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    def __eq__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__


class Word(enum.StrEnum):
    """Texts of a caller's own type."""

    HELLO = "hello"


async def arriving() -> Any:
    yield "hello"


def requested(inputs: object) -> list[Any]:
    """What is sent for inputs: texts as texts, features as lists."""
    call = next(predict(PredictSettings("m", Selector(), 0, False), inputs))  # type: ignore[arg-type]
    assert isinstance(call.request, prediction_pb2.PredictRequest)
    return [it.text or list(it.features.values) for it in call.request.inputs]


TWO = ["where is my card", "top up failed"]


@pytest.mark.parametrize(
    ("inputs", "sent"),
    [
        pytest.param("hello", ["hello"], id="a text is one input"),
        pytest.param(Word.HELLO, ["hello"], id="a text of another class"),
        pytest.param(np.str_("hello"), ["hello"], id="a text of NumPy"),
        pytest.param(np.array("hello"), ["hello"], id="an array without axes"),
        pytest.param([np.str_(it) for it in TWO], TWO, id="a list of NumPy's texts"),
        pytest.param(tuple(TWO), TWO, id="a tuple"),
        pytest.param((it for it in TWO), TWO, id="a generator"),
        pytest.param(dict.fromkeys(TWO).keys(), TWO, id="keys that were asked for"),
        pytest.param({"a": TWO[0], "b": TWO[1]}.values(), TWO, id="values of a dict"),
        pytest.param(collections.deque(TWO), TWO, id="a deque"),
        pytest.param(np.array(TWO), TWO, id="an array of texts"),
        pytest.param(np.array(TWO, object), TWO, id="an array of objects"),
        pytest.param(np.array(TWO, np.dtypes.StringDType()), TWO, id="an array of texts of any length"),
        pytest.param(Series(list(TWO)), TWO, id="a series"),
        pytest.param(Series([np.str_(it) for it in TWO]), TWO, id="a series of NumPy's texts"),
        pytest.param(np.array([1, 2], np.float32), [[1, 2]], id="an array of numbers"),
        pytest.param(np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]], id="an array of rows"),
        pytest.param(np.array([[1.0], [2.0]])[::-1], [[2], [1]], id="a view of an array"),
    ],
)
def test_what_is_meant_is_sent(inputs: object, sent: list[Any]) -> None:
    assert requested(inputs) == sent


@pytest.mark.parametrize(
    "inputs",
    [
        [TWO[0], None],
        [TWO[0], float("nan")],
        [TWO[0], NAType()],
        [TWO[0], "  "],
        Series([TWO[0], float("nan")]),
        np.array([TWO[0], None], object),
        iter([TWO[0], None]),
    ],
)
def test_a_missing_input_is_asked_for_as_an_empty_text_which_the_server_refuses_alone(inputs: Any) -> None:
    first, second = requested(inputs)
    assert first == TWO[0]
    assert not second


@pytest.mark.parametrize("inputs", [[], (), iter(()), np.array([]), np.empty((0, 384)), np.array([], str)])
def test_no_inputs_have_no_answers_and_ask_nothing(inputs: Any) -> None:
    with graft.Client(NOWHERE) as client:
        assert client.predict("m", inputs, version=3) == []
        assert list(client.predict_stream("m", inputs)) == []


def a_file(tmp_path: Path) -> Any:
    (tmp_path / "lines.txt").write_text("hello\n", "utf-8")
    return (tmp_path / "lines.txt").open(encoding="utf-8")


NO_INPUTS = [
    pytest.param({"text": "hello", "id": "7"}, "inputs is a dict, .* give list\\(inputs.values", id="dict"),
    pytest.param(collections.UserDict(text="hello"), "inputs is a UserDict, and iterating", id="mapping"),
    pytest.param(types.MappingProxyType({"text": "hello"}), "inputs is a mappingproxy", id="proxy"),
    pytest.param(Frame(), "inputs is a Frame, .*columns are text, id: give inputs\\['text'\\]", id="frame"),
    pytest.param(Table(), "inputs is a Table, .* give inputs\\['text'\\]", id="table"),
    pytest.param(set(TWO), "inputs is a set, whose order is not known: give a list", id="set"),
    pytest.param(frozenset(TWO), "inputs is a frozenset, whose order is not known", id="frozenset"),
    pytest.param(io.StringIO("hello\n"), "inputs is a StringIO, an open file: give its lines", id="file"),
    pytest.param(io.BytesIO(b"hello\n"), "inputs is a BytesIO, an open file", id="binary-file"),
    pytest.param(7, "inputs is a int, not several: give a list", id="number"),
    pytest.param(None, "inputs is a NoneType, not several", id="none"),
    pytest.param(object(), "inputs is a object, not several", id="object"),
    pytest.param(np.array([TWO]), "inputs is an array of shape \\(1, 2\\) that holds no numbers", id="pairs"),
    pytest.param(np.array([[1.0, None]], object), "inputs is an array of shape \\(1, 2\\)", id="objects"),
    pytest.param([("a", "b")], "input 0: .*, not tuple; .* a graft.TextPair", id="tuples"),
    pytest.param([["a", "b"]], "input 0: .*, not list; .* a graft.TextPair", id="lists"),
    pytest.param([[0.5, 1.5]], "input 0: .*, not list; features are a NumPy array", id="lists-of-floats"),
    pytest.param([0.5, 1.5], "input 0: .*, not float", id="floats"),
    pytest.param([7], "input 0: .*, not int", id="integers"),
    pytest.param([True], "input 0: .*, not bool", id="booleans"),
    pytest.param([io.BytesIO(b"x")], "input 0: .*, not BytesIO; give the file's content", id="files"),
    pytest.param([graft.Example("a", "x")], "input 0: .*, not Example; give its input alone", id="examples"),
    pytest.param(
        torch.ones(2, 3), "input 0: .*, not Tensor; features are given by numpy.asarray", id="tensor"
    ),
    pytest.param([torch.ones(3)], "input 0: .*, not Tensor; features are given", id="tensors"),
    pytest.param(
        [b"hello"], "input 0: the 5 bytes are neither an image .* a text is given as str", id="bytes"
    ),
    pytest.param(np.array([b"hello"]), "input 0: the 5 bytes are neither", id="array-of-bytes"),
    pytest.param(bytearray(b"hello"), "input 0: the 5 bytes are neither", id="bytearray"),
    pytest.param(Path("/nowhere/a.png"), "input 0: /nowhere/a.png cannot be read: No such file", id="path"),
    pytest.param(Path("/"), "input 0: / cannot be read: Is a directory", id="folder"),
    pytest.param(
        ["hello", "a" * (33 << 20)], "input 1: the input takes 34,603,013 bytes; at most", id="large"
    ),
    pytest.param(["hello", "\ud800"], "input 1: the text is not valid Unicode", id="surrogate"),
    pytest.param(
        [graft.TextPair("a", "\ud800")], "input 0: the text is not valid Unicode", id="pair-surrogate"
    ),
]


@pytest.mark.parametrize(("inputs", "says"), NO_INPUTS)
def test_other_shapes_are_told_what_was_given_and_what_is_right(inputs: Any, says: str) -> None:
    async def asynchronously() -> None:
        async with graft.AsyncClient(NOWHERE) as client:
            with pytest.raises((TypeError, ValueError), match=says):
                await client.predict("m", inputs)
            with pytest.raises((TypeError, ValueError), match=says):
                async for _ in client.predict_stream("m", inputs):
                    pass

    with graft.Client(NOWHERE) as client:
        with pytest.raises((TypeError, ValueError), match=says):
            client.predict("m", inputs)
        with pytest.raises((TypeError, ValueError), match=says):
            list(client.predict_stream("m", inputs))
    asyncio.run(asynchronously())


def test_what_arrives_asynchronously_is_for_the_other_client() -> None:
    with (
        graft.Client(NOWHERE) as client,
        pytest.raises(TypeError, match=r"ask by AsyncClient\.predict_stream"),
    ):
        client.predict("m", arriving())


def test_an_open_file_is_refused_and_its_lines_are_taken(tmp_path: Path) -> None:
    with a_file(tmp_path) as file:
        with pytest.raises(TypeError, match="inputs is a TextIOWrapper, an open file"):
            requested(file)
        assert requested(file.read().splitlines()) == ["hello"]


def test_a_table_of_arrow_is_refused_and_its_columns_taken() -> None:
    arrow = pytest.importorskip("pyarrow")
    rows = arrow.table({"text": TWO, "id": ["1", "2"]})
    with pytest.raises(TypeError, match=re.escape("its columns are text, id: give inputs['text']")):
        requested(rows)
    assert requested(rows["text"]) == TWO
    assert requested(rows["text"].chunk(0)) == TWO
    with pytest.raises(TypeError, match=r"not StringScalar; give Python's own values, as column.to_pylist"):
        requested(iter(rows["text"]))


@pytest.mark.parametrize("frame", ["pandas", "polars"])
def test_real_frames_are_refused_and_their_columns_taken(frame: str) -> None:
    library = pytest.importorskip(frame)
    rows = library.DataFrame({"text": TWO, "id": ["1", "2"]})
    with pytest.raises(TypeError, match=re.escape("its columns are text, id: give inputs['text']")):
        requested(rows)
    assert requested(rows["text"]) == TWO


NO_EXAMPLES = [
    pytest.param({"hello": "x"}, "examples is a dict, .*: give examples.items\\(\\)", id="dict"),
    pytest.param({("hello", "x"): 1}, "examples is a dict", id="dict-of-pairs"),
    pytest.param(
        Frame(), "examples is a Frame, .* give zip\\(examples\\['text'\\], examples\\['id'\\]", id="frame"
    ),
    pytest.param({("hello", "x")}, "examples is a set, whose order is not known", id="set"),
    pytest.param(
        io.StringIO("hello\n"), "examples is a StringIO, an open file: .* graft.read_examples", id="file"
    ),
    pytest.param("ab", "examples must be several pairs \\(input, label\\), not one str", id="text"),
    pytest.param(b"ab", "examples must be several pairs \\(input, label\\), not one bytes", id="bytes"),
    pytest.param(graft.Example("a", "x"), "examples is a Example, not several: give a list", id="example"),
    pytest.param(None, "examples is a NoneType, not several", id="none"),
]


@pytest.mark.parametrize(("examples", "says"), NO_EXAMPLES)
@pytest.mark.parametrize("options", [{}, {"task": "single_label"}])
def test_examples_of_other_shapes_are_refused_too(examples: Any, says: str, options: dict[str, str]) -> None:
    async def asynchronously() -> None:
        async with graft.AsyncClient(NOWHERE) as client:
            with pytest.raises(TypeError, match=says):
                await client.adapt("m", examples, **options)
            with pytest.raises(TypeError, match=says):
                await client.evaluate("m", examples)

    calls: list[Callable[[graft.Client], object]] = [
        lambda client: client.adapt("m", examples, **options),
        lambda client: client.check("m", examples, **options),
        lambda client: client.evaluate("m", examples),
    ]
    with graft.Client(NOWHERE) as client:
        for call in calls:
            with pytest.raises(TypeError, match=says):
                call(client)
    asyncio.run(asynchronously())
