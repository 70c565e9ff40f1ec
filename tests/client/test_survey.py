"""What the rows of a data file show before any is sent, and how several labels go through one cell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import graft
from graft._data_files.columns import Columns, DataError, RowError
from graft._data_files.merging import MergedLabels
from graft._data_files.options import Reading
from graft._data_files.reader import numbered_examples, open_data
from graft._data_files.survey import Survey, Surveyed, look
from graft._records.evaluation import label_forms
from graft._records.inputs.label_cells import cell_of
from graft._records.inputs.list_cells import list_of
from graft_server.domain import label_forms as server_forms
from graft_server.exporting.runner import answers

COLUMNS = Columns(input="text", label="label")

LISTS: list[tuple[str, Any]] = [
    ("['a', 'b']", ["a", "b"]),
    ('["a", "b"]', ["a", "b"]),
    ("['it\\'s', \"b\"]", ["it's", "b"]),
    ("('a', 'b')", ["a", "b"]),
    ("('a',)", ["a"]),
    ("{'a'}", ["a"]),
    ("{a,b}", ["a", "b"]),
    ("set()", []),
    ("[]", []),
    ("frozenset({'a'})", ["a"]),
    ("['a' 'b']", ["a", "b"]),
    ("array(['a', 'b'], dtype=object)", ["a", "b"]),
    ("Index(['a'], dtype='object')", ["a"]),
    ("[np.str_('a'), np.str_('b')]", ["a", "b"]),
    ("['a', None, nan]", ["a", None, None]),
    ("[1, 2]", [1, 2]),
    ("{'a': 0.25, 'b': 0.75}", {"a": 0.25, "b": 0.75}),
    ('{"a": 1}', {"a": 1}),
]
NO_LISTS = ["(other)", "[other]", "a|b", "f(x)", "['a'", "(1)", "['a'] and ['b']", "[a, b]", "", "{'a': 'b'}"]


@pytest.mark.parametrize(("cell", "expected"), LISTS)
def test_a_list_is_read_as_it_was_written(cell: str, expected: Any) -> None:
    assert list_of(cell) == expected
    assert list_of(f" {cell} ") == expected


@pytest.mark.parametrize("cell", NO_LISTS)
def test_a_label_in_brackets_is_no_list(cell: str) -> None:
    assert list_of(cell) is None


def test_what_pandas_writes_of_collections_is_read_back(tmp_path: Path) -> None:
    collections: list[Any] = [["a", "b c"], ("a",), {"b, c"}, np.array(["a", "b"]), ["it's", 'say "b"'], []]
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": list("abcdef"), "label": collections}).to_csv(path, index=False)
    found = [set(it.labels or ()) for it in examples(path)]
    assert found == [set(it) for it in collections]


@pytest.mark.parametrize(
    ("labels", "cell"),
    [
        (("a", "b"), "a,b"),
        (("b",), "b"),
        ((), "[]"),
        (("Cards, delivery", "Post"), '["Cards, delivery", "Post"]'),
        (("[a]",), '["[a]"]'),
        (("a\tb",), '["a\\tb"]'),
        (('say "a"',), '["say \\"a\\""]'),
        ((" a",), '[" a"]'),
        (("été", "日本"), "été,日本"),
    ],
)
def test_labels_in_one_cell_can_be_taken_apart_again(
    labels: tuple[str, ...], cell: str, tmp_path: Path
) -> None:
    assert cell_of(labels) == answers.cell_of(labels) == cell
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "a", "label": cell}))
    (found,) = examples(path, separator=",")
    assert found.labels == labels


def surveyed(path: Path, *, task: str = "", cells: str = "", **columns: Any) -> tuple[Survey, Surveyed]:
    asked = Columns(**{"input": "text", "label": "label", **columns})
    with open_data(path, Reading(), asked) as data:
        survey = Survey(data, data.fitted(asked))
        look(data.rows(), survey)
    return survey, survey.reading(task, cells)


def examples(path: Path, *, task: str = "", cells: str = "", **columns: Any) -> list[graft.Example]:
    _, found = surveyed(path, task=task, cells=cells, **columns)
    with open_data(path, Reading(), found.columns) as data:
        return [example for _, example in numbered_examples(data, found.columns, raising)]


def raising(error: RowError) -> None:
    raise error


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (["[0, 1]", "[2]", "[1, 0]"], [("0", "1"), ("2",), ("1", "0")]),
        (["[0, 1]", "[0]", "[1]"], [("0", "1"), ("0",), ("1",)]),
    ],
)
def test_zeros_and_ones_are_names_where_lists_are_no_indicators(
    cells: list[str], labels: list[tuple[str, ...]], tmp_path: Path
) -> None:
    pd.DataFrame({"text": [*"abc"], "label": cells}).to_csv(tmp_path / "a.csv", index=False)
    assert [it.labels for it in examples(tmp_path / "a.csv")] == labels
    rows = [{"text": "a", "label": json.loads(cell)} for cell in cells]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [it.labels for it in examples(tmp_path / "a.jsonl")] == labels


def test_rows_of_indicators_are_no_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": [0, 1]}\n{"text": "b", "label": [1, 1]}\n')
    with pytest.raises(DataError, match="the zeros and ones"):
        examples(tmp_path / "a.jsonl")


def test_cells_with_probabilities_are_for_one_label(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,label\na,"{""x"": 0.25, ""y"": 0.75}"\nb,"{""x"": 1}"\n')
    _, found = surveyed(path)
    assert found.columns.task == "single_label"
    assert [it.distribution for it in examples(path)] == [{"x": 0.25, "y": 0.75}, {"x": 1.0}]


def table(tmp_path: Path, *labels: object, column: str = "label") -> Path:
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": [f"text {n}" for n in range(len(labels))], column: labels}).to_csv(
        path, index=False
    )
    return path


def lines(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n}", **row}) + "\n" for n, row in enumerate(rows)))
    return path


def test_a_missing_label_is_the_same_in_every_format(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": list("abcde"), "label": [None, "x", "nan", "NA", "None"]})
    expected = [None, "x", "nan", "NA", "None"]
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.tsv", index=False, sep="\t")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    rows = [{"text": "a"}, *frame[1:].to_dict("records")]
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "c.jsonl").write_text('{"text": "a", "label": NaN}\n' + "\n".join(map(json.dumps, rows[1:])))
    for name in ("a.csv", "a.tsv", "a.jsonl", "b.jsonl", "c.jsonl"):
        path = tmp_path / name
        assert [it.label for it in graft.read_examples(path)] == expected, name
        survey, found = surveyed(path)
        assert (survey.missing, survey.rows, found.columns.task) == (1, 5, "single_label"), name
        assert found.notes == ("1 of 5 rows have no 'label': they count as unlabelled",)


def test_a_missing_value_has_words_too(tmp_path: Path) -> None:
    path = table(tmp_path, 1.5, "", "NA", "nan", "n/a", "inf", 2, column="hours")
    survey, found = surveyed(path, value="hours")
    assert (survey.missing, found.columns.task) == (4, "regression")
    assert [it.value for it in examples(path, value="hours")] == [
        1.5,
        None,
        None,
        None,
        None,
        float("inf"),
        2,
    ]
    with pytest.raises(DataError, match="line 2, column 'hours': 'soon' is not a number"):
        examples(table(tmp_path, "soon", column="hours"), value="hours")


def test_a_label_column_is_read_as_values_where_the_task_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, 0.5, None, 3)
    assert [it.value for it in examples(path, task="regression")] == [0.5, None, 3.0]


def test_a_column_that_no_row_of_json_has_is_an_error(tmp_path: Path) -> None:
    path = lines(tmp_path, {"lable": "x"}, {"lable": "y"})
    with pytest.raises(DataError, match=r"no column 'label'; the columns are: text, lable; .* --label lable"):
        list(graft.read_examples(path))
    survey, _ = surveyed(path)
    with pytest.raises(DataError, match="no column 'label'"):
        survey.absent.require()
    path = lines(tmp_path, {"label": "x"})
    with pytest.raises(DataError, match=r"no column 'customer'; .* --id"):
        list(graft.read_examples(path, id="customer"))


def test_codes_that_a_missing_one_made_fractions_of_are_whole_again(tmp_path: Path) -> None:
    path = table(tmp_path, None, 0.0, 1.0, 2.0)
    _, found = surveyed(path)
    assert any("whole numbers written as fractions (0.0, 1.0, 2.0)" in note for note in found.notes)
    assert [it.label for it in examples(path)] == [None, "0", "1", "2"]
    assert [it.label for it in examples(path, cells="keep")] == [None, "0.0", "1.0", "2.0"]
    assert [it.label for it in examples(table(tmp_path, "1.0", "1.1", "2.0"))] == ["1.0", "1.1", "2.0"]


def test_numbers_of_json_tell_the_task_together(tmp_path: Path) -> None:
    codes = [{"label": None}, *({"label": float(n % 3)} for n in range(9))]
    _, found = surveyed(lines(tmp_path, *codes))
    assert found.columns.task == "single_label"
    assert any(
        "guessed because targets are the whole numbers 0, 1, 2 and 1 is missing" in note
        and "--task regression" in note
        for note in found.notes
    )
    assert [it.label for it in examples(lines(tmp_path, *codes))][:3] == [None, "0", "1"]
    _, found = surveyed(lines(tmp_path, {"label": None}, {"label": 3}, {"label": 2.5}))
    assert found.columns.task == "regression"
    assert [it.value for it in examples(lines(tmp_path, {"label": None}, {"label": 3}, {"label": 2.5}))] == [
        None,
        3.0,
        2.5,
    ]
    flags = lines(tmp_path, {"label": True}, {"label": False}, {"label": True})
    assert [it.label for it in examples(flags)] == ["True", "False", "True"]


def test_cells_that_look_like_lists_are_read_if_most_do_and_said_in_any_case(tmp_path: Path) -> None:
    most = table(tmp_path, "['a', 'b']", "['a']", "c")
    _, found = surveyed(most)
    assert found.columns.task == "multi_label"
    assert (
        "2 of 3 cells of 'label' look like lists of labels, such as ['a', 'b']: read as lists"
        in found.notes[0]
    )
    assert [it.labels for it in examples(most)] == [("a", "b"), ("a",), ("c",)]
    assert [it.label for it in examples(most, cells="keep")] == ["['a', 'b']", "['a']", "c"]
    few = table(tmp_path, "['a', 'b']", "a", "b", "c")
    _, found = surveyed(few)
    assert found.columns.task == "single_label"
    assert found.notes[0].startswith("warning: 1 of 4 cells of 'label' look like lists")
    assert [it.labels for it in examples(few, cells="read")] == [("a", "b"), ("a",), ("b",), ("c",)]


def test_lists_of_one_label_make_a_model_of_one_label_on_request(tmp_path: Path) -> None:
    path = table(tmp_path, "['a']", "['b']", "[]")
    assert "--task single-label makes a model of one label each" in surveyed(path)[1].notes[0]
    assert [it.label for it in examples(path, task="single-label")] == ["a", "b", None]
    with pytest.raises(DataError, match=r"2 labels, 'a, b', but the task is single-label"):
        examples(table(tmp_path, "['a', 'b']", "['b']"), task="single-label")


def test_an_empty_cell_is_missing_and_an_empty_list_is_no_label(tmp_path: Path) -> None:
    path = table(tmp_path, "a;b", None, "[]", ";")
    assert [it.labels for it in examples(path, separator=";")] == [("a", "b"), None, (), None]
    assert "where no label applies, write []" in surveyed(path, separator=";")[1].notes[-1]


def test_one_label_is_a_set_where_the_task_is_of_sets(tmp_path: Path) -> None:
    assert [it.labels for it in examples(table(tmp_path, "a", "b"), task="multi-label")] == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("labels", "hinted"),
    [
        (("card;urgent", "rate;urgent", "card"), "--label-separator ';'"),
        (("card|urgent", "rate|urgent", "card|rate"), "--label-separator '|'"),
        (("Paris, France", "Rome, Italy", "Bonn, Germany"), ""),
        (("card", "rate", "urgent"), ""),
    ],
)
def test_a_separator_whose_parts_recur_is_hinted_at(
    labels: tuple[str, ...], hinted: str, tmp_path: Path
) -> None:
    notes = " ".join(surveyed(table(tmp_path, *labels))[1].notes)
    assert hinted in notes
    assert bool(hinted) == bool(notes)


def test_labels_that_are_numbers_are_hinted_at(tmp_path: Path) -> None:
    assert "say --task regression" in surveyed(table(tmp_path, 1.25, 2.5, 3.75))[1].notes[0]
    assert surveyed(table(tmp_path, *([1.5, 2.5] * 5)))[1].notes == ()


def test_ids_that_stand_for_several_rows_are_counted(tmp_path: Path) -> None:
    rows = [{"label": "a", "id": f"c{n % 5}"} for n in range(10)]
    rows += [{"label": "a", "id": None}, {"label": "b"}, {"label": "a", "id": 7}, {"label": "a", "id": 7.0}]
    survey, _ = surveyed(lines(tmp_path, *rows), id="id")
    assert survey.ids.said("rows", "texts") == "6 ids for 12 rows, 6 of them with different texts"
    rows = [{"text": "one", "label": "a", "id": 1}, {"text": "one", "label": "b", "id": 1}]
    survey, _ = surveyed(lines(tmp_path, *rows), id="id")
    assert survey.ids.said("rows", "texts") == "1 ids for 2 rows, 1 of them with different labels"
    survey, _ = surveyed(lines(tmp_path, rows[0], rows[0]), id="id")
    assert not survey.ids.lossy


def test_similar_labels_are_merged_into_the_most_frequent_or_the_known_one() -> None:
    merge = MergedLabels()
    merge.prefer_frequent({"Card": 1, "card": 3, "rate": 2})
    assert [merge(it) for it in ("Card", "card", "CARD\u200b", "Rate")] == [
        "card",
        "card",
        "card",
        "Rate",
    ]
    assert merge.notes == ["merged labels: 'Card' (1) into 'card'; 'CARD\\u200b' (1) into 'card'"]
    known = MergedLabels(["CARD"])
    known.prefer_frequent({"card": 3, "Card": 1})
    assert known("card") == "CARD"


def test_merging_reaches_sets_and_distributions(tmp_path: Path) -> None:
    columns = Columns(input="text", label="label", lists=True, task="", merge=MergedLabels(["a", "b"]))
    path = lines(
        tmp_path, {"label": "A"}, {"label": ["A", "a", "B"]}, {"label": {"A": 0.25, "a": 0.5, "b": 0.25}}
    )
    with open_data(path, Reading(), columns) as data:
        one, several, shares = (example for _, example in numbered_examples(data, columns, raising))
    assert (one.label, several.labels, shares.distribution) == ("a", ("a", "b"), {"a": 0.75, "b": 0.25})


def test_both_sides_read_labels_alike() -> None:
    labels = [
        "card_arrival", "CARD-Arrival", "sp\u00adam", "\ufeffspam", "１", "1.0", "01", "-1", "C++", "C#", "İ", "ß",
        "’a’", "Yes!", "grade -1", "1 2", "❤\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "\u2800", "",
    ]  # fmt: skip
    for label in labels:
        assert label_forms.reading(label) == server_forms.reading(label)
        assert label_forms.spelled(label) == server_forms.spelled(label)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (["card", "rate"], 1),
        ([None, "card", "rate"], 2),
        (["['a']", "b"], 1),
        ([["a"], "b"], 1),
        ([0.5, 1.0], 1),
        ([1.0, 2.0, 2.5], 3),
        (["1.0", None, "2.0", "2.1", "x"], 4),
    ],
)
def test_no_more_of_a_stream_is_looked_at_than_tells(labels: list[Any], rows: int, tmp_path: Path) -> None:
    path = lines(tmp_path, *({"label": label} for label in labels))
    with open_data(path, Reading(), COLUMNS) as data:
        survey, source = Survey(data, COLUMNS), iter(data.rows())
        while survey.open:
            survey.add(next(source))
    assert survey.rows == rows


@pytest.mark.parametrize(
    ("examples", "known", "found"),
    [
        ({"lock": 3, "bill": 1}, ["lock", "bill"], []),
        ({"lock": 3}, [], []),
        (
            {"lcok": 2, "key": 3},
            ["lock"],
            ["the model does not have these labels yet: 'key' (3), 'lcok' (2)"],
        ),
        ({f"l{n}": 1 for n in range(7)}, ["lock"], ["'l4' (1) and 2 more"]),
        ({"caf\u200be": 1}, ["cafe"], ["warning: 'caf\\u200be' (1) beside 'cafe': these differ"]),
        ({"Lock ": 1, "key": 1}, ["lock"], ["'Lock ' (1) beside 'lock'", "this label yet: 'key' (1)"]),
    ],
)
def test_labels_that_a_model_does_not_have_are_told(examples, known, found):
    told = label_forms.new_labels(examples, known)
    assert len(told) == len(found)
    assert all(it in sentence for it, sentence in zip(found, told, strict=True))
    assert not any("beside" in it for it in label_forms.new_labels(examples, known, merged=True))


def test_a_new_label_that_is_a_whole_text_is_cut():
    (said,) = label_forms.new_labels({"x" * 900: 2}, ["a"])
    assert said == f"the model does not have this label yet: '{'x' * 63}… (2)"
