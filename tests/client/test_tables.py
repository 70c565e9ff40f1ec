"""Tables as examples and inputs: frames, Arrow, splits of data sets, arrays, rows as mappings and data files."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import sqlite3
import uuid
from collections import namedtuple
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

import datasets
import graft
from graft._client.given import GivenInputs, opened
from graft._records.inputs.examples import example_messages
from graft._tables.options import as_arguments, asked_of

TEXTS = ["the lock is stuck", None, "my bill is wrong", ""]
LABELS = ["lock", "bill", None, "lock"]
COLUMNS = {"text": TEXTS, "label": LABELS}
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(TEXTS, LABELS, strict=True)]
READ = [("the lock is stuck", "lock"), ("", "bill"), ("my bill is wrong", None), ("", "lock")]
"""What the rows are sent as: one without an input is refused by the server, alone."""


def taken(given: Any, **columns: Any) -> Any:
    """The examples of a table, with what else is known of it."""
    return opened(given, columns, "adapt").examples()


def pairs(given: Any, **columns: Any) -> list[tuple[Any, Any]]:
    return [(it.input, it.label) for it in taken(given, **columns).changes]


def inputs(given: Any, **columns: Any) -> list[Any]:
    return list(GivenInputs(given, columns, "predict"))


def split() -> datasets.Dataset:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bill", "lock"]),
            "tags": datasets.Sequence(datasets.ClassLabel(names=["a", "b"])),
        }
    )
    codes = [1, 0, -1, 1]
    return datasets.Dataset.from_dict(
        {"text": TEXTS, "label": codes, "tags": [[0], [0, 1], [], None]}, features=features
    )


def database() -> Iterator[sqlite3.Row]:
    connection = sqlite3.connect(":memory:")
    connection.row_factory = sqlite3.Row
    connection.execute("create table rows (text, label)")
    connection.executemany("insert into rows values (?, ?)", list(zip(TEXTS, LABELS, strict=True)))
    yield from connection.execute("select * from rows")
    connection.close()


Named = namedtuple("Named", ["index", "text", "label"])  # noqa: PYI024 - as DataFrame.itertuples makes them

TABLES: dict[str, Callable[[], Any]] = {
    "pandas": lambda: pd.DataFrame(COLUMNS),
    "pandas strings": lambda: pd.DataFrame(COLUMNS).astype("string"),
    "pandas categories": lambda: pd.DataFrame(COLUMNS).astype({"label": "category"}),
    "pandas of arrow": lambda: pd.DataFrame(COLUMNS).convert_dtypes(dtype_backend="pyarrow"),
    "pandas with NaN": lambda: pd.DataFrame(COLUMNS).fillna(np.nan),
    "polars": lambda: pl.DataFrame(COLUMNS),
    "polars lazy": lambda: pl.DataFrame(COLUMNS).lazy(),
    "polars categories": lambda: pl.DataFrame(COLUMNS, schema_overrides={"label": pl.Categorical}),
    "arrow": lambda: pa.table(COLUMNS),
    "arrow batch": lambda: pa.RecordBatch.from_pydict(COLUMNS),
    "arrow dictionary": lambda: pa.table({"text": TEXTS, "label": pa.array(LABELS).dictionary_encode()}),
    "arrow stream": lambda: pa.table(COLUMNS).to_reader(),
    "split": split,
    "split as a stream": lambda: split().to_iterable_dataset(),
    "split as torch sees it": lambda: split().with_format("torch"),
    "records": lambda: np.array([*zip(TEXTS, LABELS, strict=True)], [("text", object), ("label", object)]),
    "dicts": lambda: ROWS,
    "dicts as they come": lambda: iter(ROWS),
    "rows of a database": database,
    "named tuples": lambda: (Named(n, *it.values()) for n, it in enumerate(ROWS)),
    "rows of pandas": lambda: pd.DataFrame(COLUMNS).itertuples(),
    "csv.DictReader": lambda: csv.DictReader(io.StringIO(pd.DataFrame(COLUMNS).to_csv(index=False))),
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_read_row_by_row(table: Callable[[], Any]) -> None:
    assert pairs(table()) == READ
    assert inputs(table()) == [text for text, _ in READ]
    assert inputs(table(), input="Text") == [text for text, _ in READ]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_task_of_a_table_is_known_before_anything_is_sent(table: Callable[[], Any]) -> None:
    found = taken(table())
    assert found.task == "single_label"
    if found.table.source.whole:
        assert "1 of 4 rows have no 'label': they count as unlabelled" in found.notes


def test_columns_in_a_dict_are_a_table_where_they_are_named() -> None:
    columns = {"q": ["a", "b"], "intent": np.array(["x", "y"])}
    assert pairs(columns, input="q", label="intent") == [("a", "x"), ("b", "y")]
    with pytest.raises(graft.DataError, match=r"different lengths \(q: 2, intent: 1\)"):
        taken({"q": ["a", "b"], "intent": ["x"]}, input="q", label="intent")


def test_an_array_of_one_column_holds_inputs_and_one_of_two_holds_pairs() -> None:
    assert inputs(pd.DataFrame({"q": ["a", None]}).to_numpy()) == ["a", None]
    assert taken(np.array([("a", "x"), ("b", "y")])).changes == [["a", "x"], ["b", "y"]]


def test_a_stream_of_rows_that_comes_asynchronously() -> None:
    async def rows(first: Any = None) -> AsyncIterator[Any]:
        for row in [first, *ROWS] if first else ROWS:
            yield row

    async def examples(given: Any) -> list[Any]:
        found = await opened(given, {}, "adapt").coming()
        return [it async for it in found.changes]

    async def asked(given: Any) -> list[Any]:
        return [it async for it in GivenInputs(given, {}, "predict_stream", asynchronous=True).coming()]

    assert [(it.input, it.label) for it in asyncio.run(examples(rows()))] == READ
    assert asyncio.run(asked(rows())) == [text for text, _ in READ]
    assert asyncio.run(examples(rows(("a", "x"))))[:2] == [("a", "x"), ROWS[0]]
    assert asyncio.run(asked(rows("a")))[:1] == ["a"]


def test_every_column_has_its_part(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "q": ["a", "b"],
            "answer": ["c", "d"],
            "intent": ["x;y", "y"],
            "key": [uuid.UUID(int=7), uuid.UUID(int=8)],
            "who": [3, 4],
            "w": [1, 0.5],
            "fold": pd.to_datetime(["2024-05-01", "2024-05-02"]),
            "part": ["train", "validation"],
            "seen": [True, False],
        }
    )
    options = {"second": "answer", "label": "intent", "label_separator": ";", "id": "key", "subject": "who"}
    one, other = taken(
        frame, input="q", group="fold", weight="w", split="part", confirmed="seen", **options
    ).changes
    key = str(uuid.UUID(int=7))
    assert one == graft.Example(
        graft.TextPair("a", "c"), labels=("x", "y"), id=key, subject="3", weight=1.0, group="2024-05-01 00:00:00",
        split="train", confirmed=True,
    )  # fmt: skip
    assert (one.origin, other.origin, other.confirmed) == ("row 0", "row 1", False)
    assert (other.labels, other.weight, other.split) == (("y",), 0.5, "validation")


def test_targets_of_every_type() -> None:
    texts = ["a", "b", "c"]
    assert [it.value for it in taken({"t": texts, "y": [0.5, None, Decimal(2)]}, input="t", value="y").changes] == [
        0.5, None, 2.0,
    ]  # fmt: skip
    lists = pd.DataFrame({"text": texts, "label": [["x"], np.array(["x", "y"]), []]})
    assert [it.labels for it in taken(lists).changes] == [("x",), ("x", "y"), ()]
    shares = pl.DataFrame({"text": texts, "label": [{"x": 0.5, "y": 0.5}, {"x": 1.0, "y": 0.0}, None]})
    assert [it.distribution for it in taken(shares).changes] == [
        {"x": 0.5, "y": 0.5},
        {"x": 1.0, "y": 0.0},
        None,
    ]
    ones = pd.DataFrame({"text": texts, "x": [1, 0, 1], "y": [True, False, False]})
    assert [it.labels for it in taken(ones, labels_from=["x", "y"]).changes] == [("x", "y"), (), ("x",)]
    tagged = split()
    assert [it.labels for it in taken(tagged, label="tags").changes] == [("a",), ("a", "b"), (), None]


@pytest.mark.parametrize("integer", [np.int64, np.uint8, "Int64"])
def test_whole_numbers_are_names_of_classes_and_that_is_said_once(
    integer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = taken(pd.DataFrame({"text": list("abcd"), "label": pd.array([0, 1, 0, 2], integer)}))
    assert [it.label for it in found.changes] == ["0", "1", "0", "2"]
    (said,) = found.notes
    assert said == (
        "task: single-label, guessed because targets are the whole numbers 0, 1, 2, which may be names of classes; "
        "task='regression' overrules"
    )
    assert caplog.messages == [said]


def test_true_and_false_are_names_of_classes_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    found = taken(pd.DataFrame({"text": list("abc"), "label": [True, False, True]}))
    assert [it.label for it in found.changes] == ["True", "False", "True"]
    assert "targets are True and False, which are taken for the names of classes" in found.notes[0]
    assert caplog.messages == [found.notes[0]]


def test_columns_that_look_swapped_are_asked_about_before_anything_is_sent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    frame = pd.DataFrame(
        {"text": ["spam", "ham"] * 10, "label": [f"a text of many words, {n}" for n in range(20)]}
    )
    taken(frame)
    assert "inputs and labels look swapped" in caplog.text
    assert "give input='label' and label='text', if these are meant" in caplog.text
    caplog.clear()
    taken(frame, input="label", label="text")
    assert caplog.text == ""


def test_codes_that_a_missing_one_made_floats_are_codes() -> None:
    frame = pd.DataFrame({"text": list("abcdefg"), "label": [0, 1, 2, 0, 1, 2, None]})
    found = taken(frame)
    assert found.task == "single_label"
    assert [it.label for it in found.changes] == ["0", "1", "2", "0", "1", "2", None]


def test_categories_without_a_row_are_no_labels() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": pd.Categorical(["x", "x"], ["x", "y", "z"])})
    assert {it.label for it in taken(frame).changes} == {"x"}


def test_a_row_that_is_no_example_is_refused_alone_with_what_was_given() -> None:
    frame = pd.DataFrame(
        {"text": ["a", 5, "c", "d"], "label": ["x", "y", dt.date(2024, 5, 1), "x"], "w": [1, 2, 3, "much"]}
    )
    found = taken(frame, weight="w")
    assert [it.input for it in found.changes] == ["a", "", "", ""]
    assert {row: it.reason for row, it in found.table.refused.items()} == {
        1: "column 'text': 5 is not a text",
        2: (
            "column 'label': a label must be a text (str) or a number, not datetime.date(2024, 5, 1); "
            "str() makes a text"
        ),
        3: "column 'w': 'much' is not a number",
    }


def test_rows_are_named_by_position_and_by_an_index_of_their_own() -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x", "y", "z"]})
    assert taken(frame).table.place(2) == "row 2"
    assert taken(frame[frame.text != "b"]).table.place(1) == "row 1 (index 2)"
    assert taken(frame.set_index(pd.Index(["p", "q", "r"]))).table.place(1) == "row 1 (index 'q')"


class Watched(pd.DataFrame):  # type: ignore[misc]
    """A frame that notes which columns are read."""

    read: set[str] = set()  # noqa: RUF012

    @property
    def _constructor(self) -> Any:
        return Watched

    @property
    def iloc(self) -> Any:
        return self

    def __getitem__(self, place: Any) -> Any:
        rows = super().iloc
        if isinstance(place, tuple):
            Watched.read.add(self.columns[place[1]])
        return rows[place]


def test_columns_that_nobody_asks_for_are_not_read_but_the_first_rows() -> None:
    Watched.read.clear()
    frame = Watched({"text": ["a"] * 5, "label": ["x"] * 5, "others": [1] * 5, "more": [2] * 5})
    found = taken(frame)
    Watched.read.clear()
    assert len(list(found.changes)) == 5
    assert Watched.read == {"text", "label"}


def test_levels_of_an_index_that_have_names_are_columns_too() -> None:
    frame = pd.DataFrame({"key": ["k", "l"], "text": ["a", "b"], "label": ["x", "y"]}).set_index("key")
    assert [it.id for it in taken(frame, id="key").changes] == ["k", "l"]
    assert pairs(frame.set_index("label", append=True)) == [("a", "x"), ("b", "y")]
    assert inputs(frame[["text"]].rename(columns={"text": "q"})) == ["a", "b"]
    named = frame.rename_axis("text")
    assert pairs(named) == [("a", "x"), ("b", "y")]


def test_two_columns_that_are_no_pairs_are_told_how_to_become_some() -> None:
    texts, labels = pd.Series(["a", "b", "c"]), pd.Series(["x", "y", "x"])
    for given in ((texts, labels), [texts.to_numpy(), labels.to_numpy()], (texts.tolist(), labels.tolist())):
        with pytest.raises(TypeError, match=r"put together by zip\(inputs, labels\)"):
            list(example_messages(taken(given).changes))
    with pytest.raises(TypeError, match=r"an input without a label is \(input, None\)"):
        list(example_messages(taken(texts).changes))


def test_names_of_columns_that_are_no_texts() -> None:
    assert pairs(pd.DataFrame([["a", "x"]]), input=0, label=1) == [("a", "x")]
    levels = pd.DataFrame([["a", "x"]], columns=pd.MultiIndex.from_tuples([("in", "en"), ("out", "")]))
    assert pairs(levels, input=("in", "en"), label="out") == [("a", "x")]


def test_images_and_clips_come_as_files_content_and_pictures(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4), "red")
    picture.save(tmp_path / "red.png")
    content = (tmp_path / "red.png").read_bytes()
    frame = pd.DataFrame({"text": [content, tmp_path / "red.png", picture], "label": ["a", "b", "c"]})
    for value in inputs(frame):
        assert Image.open(io.BytesIO(value)).getpixel((1, 1)) == (255, 0, 0)
    named = pl.DataFrame({"file": [str(tmp_path / "red.png"), str(tmp_path / "no.png")], "label": ["a", "b"]})
    found = taken(named, path="file")
    assert [it.input for it in found.changes] == [content, ""]
    assert "no.png: it cannot be read: No such file" in found.table.refused[1].reason
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    pictures = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / "red.png"), picture], "label": [1, 0]}, features
    )
    for rows in (pictures, pictures.to_iterable_dataset()):
        one, other = taken(rows, input="image").changes
        assert (one.input, one.label, other.label) == (content, "b", "a")
        assert Image.open(io.BytesIO(other.input)).getpixel((1, 1)) == (255, 0, 0)


def test_features_in_a_column() -> None:
    frame = pd.DataFrame({"text": [np.array([0.5, 1.0]), np.eye(2)], "label": ["a", "b"]})
    found = taken(frame)
    one, _ = found.changes
    assert one.input.tolist() == [0.5, 1.0]
    assert "features must have shape (d,)" in found.table.refused[1].reason


def test_data_files_and_folders_are_tables_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("Text,intent\nthe lock is stuck,lock\nmy bill,bill\n", "utf-8")
    for given in (path, str(path)):
        found = taken(given, label="intent")
        assert [(it.input, it.label) for it in found.changes] == [
            ("the lock is stuck", "lock"),
            ("my bill", "bill"),
        ]
        assert found.table.place(1) == "line 3"
    with pytest.raises(
        graft.DataError, match=r"no column 'label'; the columns are: Text, intent; .*label='COLUMN'"
    ):
        taken(path)
    (tmp_path / "latin.csv").write_bytes(
        ("text,label\n" + "".join(f"caf\u00e9 {n},x\n" for n in range(9))).encode("cp1252")
    )
    with pytest.raises(graft.DataError, match=r"give encoding='\w+' of graft\.read_examples"):
        taken(tmp_path / "latin.csv")
    with pytest.raises(graft.DataError, match=r"none\.csv: No such file"):
        taken(tmp_path / "none.csv")
    for name in ("a", "b"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / "classes" / name / "red.png")
    found = taken(tmp_path / "classes")
    assert [it.label for it in found.changes] == ["a", "b"]
    assert found.table.place(1) == "b/red.png"
    assert inputs(str(path)) == [str(path)]


FRAME = pd.DataFrame({"question": ["a", "b"], "intent": ["x", "y"], "key": [1, 1]})


@pytest.mark.parametrize(
    ("given", "columns", "error", "says"),
    [
        (FRAME, {}, graft.DataError, "the DataFrame: no column 'text'; the columns are: question, intent, key"),
        (FRAME, {"input": "question"}, graft.DataError, "no column 'label'; .* name the right one with label='COLUMN'"),
        (FRAME, {"input": "qestion", "label": "intent"}, graft.DataError, "input='question'"),
        (FRAME, {"inputs": "question"}, TypeError, r"adapt\(\) got .* argument 'inputs'; did you mean input\?"),
        (FRAME, {"label": FRAME["intent"]}, TypeError, "label must be the name of a column, not a Series"),
        (FRAME, {"label": None, "labels_from": "x"}, TypeError, "labels_from must be names of columns, as a list"),
        (FRAME, {"label": "intent", "value": "key"}, ValueError, "give one of label, labels_from and value"),
        (FRAME, {"input": "question", "path": "key"}, ValueError, "give input .* or path"),
        (FRAME, {"label_cells": "split"}, ValueError, "label_cells is 'split'; it must be 'read', 'keep' or empty"),
        (FRAME, {"decimal": ";"}, ValueError, "decimal is ';'; it must be"),
        (
            FRAME,
            {"input": "question", "label": "intent", "id": "key"},
            ValueError,
            r"the column 'key' is not unique: 1 ids for 2 rows.*id_repeats='replace'",
        ),
        (FRAME, {"input": "key", "label": "intent"}, graft.DataError, r"row 0, .* 1 is not a text \(none of the 2"),
        ([("a", "x")], {"input": "text"}, TypeError, "told which columns hold what, but the list is no table"),
        (iter([("a", "x")]), {"input": "text"}, TypeError, "is no table"),
        ([{"t": "a"}], {}, graft.DataError, "the list of rows: no column 'label'; the columns are: t"),
        (iter([{"t": "a", "label": "x"}]), {}, graft.DataError, "no column 'text'; the columns are: t, label"),
        ([{"text": "a", "label": "x"}, ("b", "y")], {}, None, "a row must be a mapping, as those before it, not tuple"),
        (csv.DictReader(["text,label", "a,x", "b,y,z"]), {}, None, "there are 1 cells more than columns"),
        (datasets.DatasetDict({"train": split()}), {}, TypeError, r"its splits: train; give one, as data\['train'\]"),
        (pa.table([["a"], ["b"]], ["text", "text"]), {}, graft.DataError, "2 columns are named 'text'"),
        (
            pd.DataFrame({"text": ["a"], "is a": [1], "b": [0]}),
            {},
            graft.DataError,
            r"hold 0 and 1 only: labels_from=\['is a', 'b'\] takes them for labels",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_said_in_the_terms_of_the_client(
    given: Any, columns: dict[str, Any], error: type[Exception] | None, says: str
) -> None:
    if error is None:
        found = taken(given, **columns)
        assert len(list(found.changes)) == 2
        assert says in found.table.refused[1].reason
        return
    with pytest.raises(error, match=says):
        list(taken(given, **columns).changes)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("--task single-label makes", "task='single_label' makes"),
        ("say --label-separator '|'", "label_separator='|'"),
        ("give --decimal ,", "decimal=','"),
        ("; --label-cells keep keeps it", "label_cells='keep' keeps it"),
        ("that --label a-b can be", "label='a-b' can be"),
        ("the label '--x' is", "the label '--x' is"),
        ("give --encoding cp1252, if", "give encoding='cp1252' of graft.read_examples, if"),
        ("with --columns A,B,…", "with columns=['A', 'B', '…'] of graft.read_examples"),
        ("or --quote '\"' if", "or quote='\"' of graft.read_examples if"),
        ("--columns names a column", "columns of graft.read_examples names a column"),
        ("--encoding: 'x' is no", "encoding of graft.read_examples: 'x' is no"),
    ],
)
def test_options_of_the_command_line_become_arguments(said: str, meant: str) -> None:
    assert meant in as_arguments(said)


def test_the_arguments_for_columns_are_those_that_are_described() -> None:
    every: Any = dict.fromkeys(graft.TableColumns.__annotations__)
    assert not asked_of(every, "adapt").named
    assert set(graft.InputColumns.__annotations__) < set(graft.TableColumns.__annotations__)


def test_a_frame_goes_in_and_its_refused_rows_come_back_by_position(server: Any) -> None:
    said = {"lock": "the lock is stuck", "bill": "my bill is wrong"}
    rows = [(f"{said[label]} {n}", label) for n in range(12) for label in said]
    frame = pd.DataFrame(rows, columns=["question", "intent"], index=range(100, 124))
    frame.loc[103, "question"] = np.nan
    frame.loc[105, "intent"] = None
    frame["w"] = [*[1.0] * 23, "much"]
    model = f"tables/{uuid.uuid4().hex}"
    options: Any = {"input": "question", "label": "intent", "weight": "w"}
    with graft.Client(server.target) as client:
        checked = client.check(model, frame, **options)
        result = client.adapt(model, frame, **options)
        for refused in (checked.rejected, result.rejected):
            assert [(it.row, it.origin) for it in refused] == [
                (3, "row 3 (index 103)"), (23, "row 23 (index 123)"),
            ]  # fmt: skip
            assert refused[0].reason == "INPUT_EMPTY"
            assert refused[1].detail == "column 'w': 'much' is not a number"
        assert (result.report.examples, checked.unlabelled) == (21, 2)
        assert "1 of 24 rows have no 'intent': they count as unlabelled" in result.notices
        answers = client.predict(model, pl.from_pandas(frame[["question"]]))
        assert len(answers) == 24
        assert [n for n, it in enumerate(answers) if it.error] == [3]
        assert client.predict(model, frame["question"])[4].label == "lock"
        streamed = list(client.predict_stream(model, [{"q": "my bill"}, {"q": 7}, {}], input="q"))
        assert streamed[0].label == "bill"
        assert "row 1, column 'q': 7 is not a text" in str(streamed[1].error)
        assert "there is no 'q'" in str(streamed[2].error)
        mixed = pd.DataFrame({"text": ["the lock", 5, None], "label": ["lock", "lock", "bill"]})
        measured = client.evaluate(model, mixed)
        assert measured.examples == 1
        assert [(it.origin, it.reason) for it in measured.rejected] == [
            ("row 1", "ROW_UNUSABLE"), ("row 2", "INPUT_EMPTY"),
        ]  # fmt: skip
    asyncio.run(asynchronously(server.target, model, frame))


async def asynchronously(target: str, model: str, frame: pd.DataFrame) -> None:
    """The asyncio client takes the same."""
    async with graft.AsyncClient(target) as client:
        checked = await client.check(model, frame, input="question", label="intent", weight="w")
        assert [it.row for it in checked.rejected] == [3, 23]
        assert len(await client.predict(model, frame, input="question")) == 24
        streamed = [
            it async for it in client.predict_stream(model, pl.DataFrame({"text": ["my bill", None]}))
        ]
        assert (streamed[0].label, streamed[1].error is None) == ("bill", False)
        measured = await client.evaluate(
            model, pa.table({"text": ["the lock", ""], "label": ["lock", "lock"]})
        )
        assert [it.origin for it in measured.rejected] == ["row 1"]
