"""What `graft predict` takes its arguments for, and the columns of its answers."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

import graft
from graft._data_files.columns import DataError
from graft._data_files.formats.whole import FileForm, TextForm
from graft._records.predicting.answer_columns import AnswerColumns, cell_text
from graft.cli import build_parser
from graft.cli.answering.output import not_in
from graft.cli.answering.what import Given, given
from graft.cli.showing.terminal import Terminal


class Asked(Terminal):
    """A terminal at which somebody gives one answer."""

    def __init__(self, answer: str | None = None) -> None:
        super().__init__()
        self.answer = answer
        self.questions: list[str] = []

    def ask(self, question: str) -> str | None:
        self.questions.append(question)
        return self.answer


def arguments(*given: str) -> argparse.Namespace:
    return build_parser().parse_args(["predict", "m", *given])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of each kind, where the command runs."""
    for name in ("in.csv", "in.csv.gz", "my data.JSONL", "lines.txt", "a.png", "b.PNG", "help"):
        (tmp_path / name).write_text("text\n")
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["in.csv"], Given("table", "in.csv")),
        (["in.csv.gz"], Given("table", "in.csv.gz")),
        (["my data.JSONL"], Given("table", "my data.JSONL")),
        (["lines.txt"], Given("lines", "lines.txt")),
        (["lines.txt", "--input", "text"], Given("table", "lines.txt")),
        (["photos"], Given("table", "photos")),
        (["a.png"], Given("media")),
        (["a.png", "b.PNG"], Given("media")),
        (["-"], Given("lines", "-")),
        (["-", "--input", "text"], Given("table", "-")),
        (["help", "--input", "text"], Given("table", "help")),
        (["help", "--output", "out.csv"], Given("table", "help")),
        (["help"], Given("texts")),
        (["where is my parcel?"], Given("texts")),
        (["the numbers in report.csv are wrong"], Given("texts")),
        (["in.csv", "--text"], Given("texts")),
        (["none.csv", "--text"], Given("texts")),
        (["a", "b"], Given("texts")),
        (["none.png", "--files"], Given("media")),
        (["in.csv", "b", "--pairs"], Given("texts")),
    ],
)
def test_a_file_is_taken_for_a_file_and_a_text_for_a_text(words: list[str], what: Given) -> None:
    terminal = Asked()
    assert given(arguments(*words), terminal) == what
    assert not terminal.questions or words == ["help"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.csv"], "there is no file none.csv; if it is a text to classify, say --text"),
        (["no data.parquet"], "there is no file no data.parquet"),
        (["none.png"], "there is no file none.png"),
        (["./none.tsv.gz"], "there is no file ./none.tsv.gz"),
        (["none", "--input", "text"], "none: there is no such file"),
        (["in.csv", "in.csv.gz"], "in.csv looks like a file, and there are 2 arguments"),
        (["a.png", "none.png"], "a.png looks like a file"),
        (["a", "b", "--output", "out.csv"], "--output cannot be given with texts"),
        (["a.png", "--input", "text"], "--input cannot be given with texts"),
    ],
)
def test_what_is_in_doubt_is_no_text_without_a_word(words: list[str], says: str) -> None:
    with pytest.raises(DataError) as raised:
        given(arguments(*words), Asked())
    assert says in str(raised.value)


def test_somebody_at_a_terminal_is_asked() -> None:
    terminal = Asked("y")
    assert given(arguments("none.csv"), terminal) == Given("texts")
    assert terminal.questions == ["There is no file none.csv. Classify these words themselves? [y/N] "]
    assert given(arguments("help"), terminal) == Given("table", "help")
    with pytest.raises(DataError):
        given(arguments("none.csv"), Asked("n"))


def answer(*scores: graft.Score, **fields: float) -> graft.Prediction:
    return graft.Prediction(scores, False, 0.25, True, (), None, 1, **fields)


def test_the_columns_fit_the_task() -> None:
    several = AnswerColumns("multi_label", top_k=3)
    assert several.names[:8] == (
        *("labels", "probabilities", "label_1", "probability_1"),
        *("label_2", "probability_2", "label_3", "probability_3"),
    )
    found = several.values(answer(graft.Score("a", 0.9, True), graft.Score("b", 0.6, True)))
    assert found == [["a", "b"], [0.9, 0.6], "a", 0.9, "b", 0.6, None, None, False, True, 0.25, None]
    assert [cell_text(it) for it in found[:2]] == ["a,b", "0.9,0.6"]
    none = AnswerColumns("multi_label").values(answer(graft.Score("a", 0.2, False)))
    assert [cell_text(it) for it in none[:2]] == ["[]", "[]"]
    numbers = AnswerColumns("regression", top_k=3)
    assert numbers.names[:4] == ("value", "low", "high", "abstained")
    assert numbers.values(answer(value=0.1, low=-1.0, high=1e300))[:3] == [0.1, -1.0, 1e300]
    scored = AnswerColumns("single_label", labels=("a", "b"))
    assert scored.names[2:4] == ("probability:a", "probability:b")
    assert scored.scores == 2
    assert scored.values(answer(graft.Score("b", 0.9), graft.Score("a", 0.1)))[:4] == ["b", 0.9, 0.1, 0.9]
    assert scored.values("gone") == [None] * 7 + ["gone"]
    assert len(scored.names) == len(scored.kinds) == 8


def test_texts_that_an_encoding_cannot_write_are_found() -> None:
    form = FileForm("csv", ("text",), TextForm("cp1252"))
    assert not not_in(form, ["label", "größer"])
    assert not_in(form, ["label", "錠", "鍵"]) == "錠"
