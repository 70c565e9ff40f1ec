"""`graft predict`: every argument, file and line has an answer of its own, in its place."""

from __future__ import annotations

import ast
import io
from dataclasses import replace
from pathlib import Path

import pytest

import graft
from graft._data_files.columns import DataError
from graft.cli.answering.asking import (
    Questions,
    given_files,
    given_pairs,
    given_texts,
    line_as_file,
    line_as_pair,
    line_as_text,
    lines_of,
)
from graft.cli.showing.terminal import Terminal

PNG = b"\x89PNG\r\n\x1a\n"


def answer(text: object, **fields: object) -> graft.Prediction:
    usual = graft.Prediction(
        scores=(graft.Score(f"label of {text}", 0.75),),
        abstained=False,
        novelty=0.5,
        truncated=False,
        features=(),
        error=None,
        version=1,
    )
    return replace(usual, **fields)  # type: ignore[arg-type]


def answered(questions: Questions) -> list[tuple[str, str]]:
    """How inputs are shown, with their labels or errors, if everything that is sent is answered."""
    answers = questions.answered(answer(it) for it in questions.inputs())
    return [(shown, it.error.message if it.error else str(it.label)) for shown, it in answers]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\n\r\nb\r\n", ["a", "", "b"]),
        (b"\n\n", ["", ""]),
        (b"a\n   \n\t\nb\n", ["a", "", "", "b"]),
        (b"a\rb\x0bc\xe2\x80\xa8d\n", ["a\rb\x0bc\u2028d"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n", ["a", "\ufeffb"]),
        (b"a\0b\n", ["a\0b"]),
    ],
)
def test_each_line_is_asked_also_a_blank_one(given: bytes, shown: list[str]) -> None:
    questions = Questions(lines_of(io.BytesIO(given), "utf-8", line_as_text))
    assert answered(questions) == [(it, f"label of {it}") for it in shown]
    assert questions.count == len(shown)
    assert questions.first_error is None


def test_a_line_that_cannot_be_sent_has_its_error_in_its_place() -> None:
    given = b"\xff\na\nb \xe9\n\nc\n\xff\xff\n"
    questions = Questions(lines_of(io.BytesIO(given), "utf-8", line_as_text))
    assert answered(questions) == [
        ("\ufffd", "line 1: byte 0xff at 0 is not utf-8; save the text as utf-8"),
        ("a", "label of a"),
        ("b \ufffd", "line 3: byte 0xe9 at 2 is not utf-8; save the text as utf-8"),
        ("", "label of "),
        ("c", "label of c"),
        ("\ufffd\ufffd", "line 6: byte 0xff at 0 is not utf-8; save the text as utf-8"),
    ]
    assert (questions.count, questions.errors) == (6, 3)


def test_lines_of_utf_16_are_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match="standard input is UTF-16; make it UTF-8"):
        list(lines_of(io.BytesIO("a\n".encode("utf-16")), "utf-8", line_as_text))


def test_a_line_may_be_a_pair_or_name_a_file(tmp_path: Path) -> None:
    pairs = Questions(lines_of(io.BytesIO(b"a\tb\nc\n\td\n"), "utf-8", line_as_pair))
    assert [text for _, text in answered(pairs)] == [
        f"label of {graft.TextPair('a', 'b')}",
        "the line has 0 tabs; a pair is two texts with one tab between them",
        f"label of {graft.TextPair('', 'd')}",
    ]
    (tmp_path / "a.png").write_bytes(PNG)
    names = f"{tmp_path}/a.png\n{tmp_path}/none.png\n".encode()
    good, bad = answered(Questions(lines_of(io.BytesIO(names), "utf-8", line_as_file)))
    assert good[1] == f"label of {PNG!r}"
    assert bad[1] == f"{tmp_path}/none.png cannot be read: No such file or directory"


def test_files_that_cannot_be_read_fail_alone(tmp_path: Path) -> None:
    for name, content in (("a.png", PNG), ("b.txt", b"hello")):
        (tmp_path / name).write_bytes(content)
    names = [f"{tmp_path}/{name}" for name in ("none.png", "a.png", "b.txt", "")]
    questions = Questions(given_files(names))
    errors = [text for _, text in answered(questions)]
    assert errors[0].endswith("none.png cannot be read: No such file or directory")
    assert errors[1] == f"label of {PNG!r}"
    assert errors[2].startswith("the 5 bytes are neither an image")
    assert errors[3].endswith("cannot be read: Is a directory")
    assert (questions.count, questions.errors) == (4, 3)


def test_texts_and_pairs_of_the_command_line() -> None:
    texts = answered(Questions(given_texts(["a", "", "\udcff"])))
    assert texts[:2] == [("a", "label of a"), ("", "label of ")]
    assert "the text is not valid Unicode" in texts[2][1]
    assert answered(Questions(given_pairs(["a", "b"]))) == [("a | b", f"label of {graft.TextPair('a', 'b')}")]
    with pytest.raises(DataError, match="takes texts two by two, but 3 were given"):
        given_pairs(["a", "b", "c"])


@pytest.mark.parametrize(
    ("prediction", "line"),
    [
        (answer("a"), "label of a\t0.7500\ttext"),
        (
            answer("a", abstained=True, novelty=0.9871),
            "label of a\t0.7500\ttext\tabstained: unlike the training data (novelty 0.987)",
        ),
        (answer("a", truncated=True), "label of a\t0.7500\ttext\ttruncated: the end was cut off"),
        (
            answer("a", abstained=True, novelty=1.0, truncated=True, value=3.5, low=1.0, high=6.0, scores=()),
            (
                "3.5\t1 to 6\ttext\tabstained: unlike the training data (novelty 1.000), "
                "truncated: the end was cut off"
            ),
        ),
        (
            answer("a", error=graft.InvalidArgumentError("inputs[0].text is empty"), scores=()),
            "\t\ttext\terror: the text is empty",
        ),
    ],
)
def test_a_line_says_what_is_to_be_minded(
    prediction: graft.Prediction, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Terminal().prediction_line("text", prediction)
    assert capsys.readouterr().out == f"{line}\n"


@pytest.mark.parametrize(
    "text",
    [
        "a\tb\nc\r\nd",
        "\\t is no tab \\",
        "\\\\N",
        "".join(it for at in range(0x2100) if len(f"a{(it := chr(at))}b".splitlines()) > 1),
        "\0",
    ],
)
def test_an_answer_is_one_line_of_so_many_cells_and_tells_the_text(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Terminal().prediction_line(text, answer(text))
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 1
    cells = [ast.literal_eval(f'"{cell}"') for cell in out.removesuffix("\n").split("\t")]
    assert cells == [f"label of {text}", "0.7500", text]
