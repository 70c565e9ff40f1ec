"""Predictions as data frames."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import polars as pl
import pytest

import graft

SCORES = (graft.Score("a", 0.75), graft.Score("b", 0.2))


def answer(
    *scores: graft.Score,
    error: graft.GraftError | None = None,
    features: tuple[float, ...] = (),
    **fields: float,
) -> graft.Prediction:
    return graft.Prediction(scores, bool(fields.pop("odd", 0)), 0.25, False, features, error, 1, **fields)


REFUSED = answer(error=graft.InvalidArgumentError("inputs[1].text is empty: give a text."))


def test_a_frame_has_a_row_for_each_prediction() -> None:
    frame = graft.Predictions([answer(*SCORES), REFUSED, answer(*SCORES, odd=1)]).to_frame(index=[5, 7, 9])
    assert [*frame.columns] == ["label", "probability", "abstained", "truncated", "novelty", "error"]
    assert [*frame.index] == [5, 7, 9]
    assert frame.loc[5].tolist()[:5] == ["a", 0.75, False, False, 0.25]
    assert frame.isna().loc[7].tolist() == [True] * 5 + [False]
    assert frame.loc[7, "error"] == "the text is empty: give a text."
    assert frame.error.isna().tolist() == [True, False, True]
    assert frame[frame.abstained.fillna(value=False)].index.tolist() == [9]
    assert frame.probability.dtype == "float64"
    frame = pd.DataFrame({"text": ["x", "y"]}, index=["i", "j"])
    joined = frame.join(graft.Predictions([answer(*SCORES)] * 2).to_frame(index=frame.index))
    assert joined.loc["j", ["text", "label"]].tolist() == ["y", "a"]


def test_a_frame_fits_the_task() -> None:
    several = answer(graft.Score("a", 0.9, True), graft.Score("b", 0.6, True), graft.Score("c", 0.1, False))
    frame = graft.Predictions([REFUSED, several]).to_frame(top_k=2)
    assert [*frame.columns][:4] == ["labels", "probabilities", "label_1", "probability_1"]
    assert frame.labels.tolist() == [None, ["a", "b"]]
    assert frame.label_2[1] == "b"
    frame = graft.Predictions([answer(value=1.5, low=1.0, high=2.0), REFUSED]).to_frame()
    assert frame[["value", "low", "high"]].iloc[0].tolist() == [1.5, 1.0, 2.0]
    assert frame.value.isna().tolist() == [False, True]
    frame = graft.Predictions([answer(*SCORES, features=(0.6, 0.8)), REFUSED]).to_frame(top_k=3)
    assert frame[["label_2", "label_3", "features"]].iloc[0].tolist() == ["b", None, [0.6, 0.8]]
    assert graft.Predictions([]).to_frame().shape == (0, 6)


def test_polars_makes_the_same_frame() -> None:
    frame = graft.Predictions([REFUSED, answer(*SCORES)]).to_frame("polars")
    assert frame.schema == {
        "label": pl.String,
        "probability": pl.Float64,
        "abstained": pl.Boolean,
        "truncated": pl.Boolean,
        "novelty": pl.Float64,
        "error": pl.String,
    }
    assert frame.row(1) == ("a", 0.75, False, False, 0.25, None)
    several = answer(graft.Score("a", 0.9, True), features=(0.6,))
    frame = graft.Predictions([several, REFUSED]).to_frame("polars")
    assert frame["labels"].to_list() == [["a"], None]
    assert frame["features"].to_list() == [[0.6], None]
    with pytest.raises(ValueError, match="'pandas' or 'polars'"):
        graft.Predictions([]).to_frame("arrow")
    with pytest.raises(ValueError, match="has no index"):
        graft.Predictions([]).to_frame("polars", index=[])


def test_no_library_is_imported_before() -> None:
    program = (
        "import sys, graft; graft.Predictions([]); graft.Client; import graft.cli.verbs; "
        "assert not {'pandas', 'polars', 'pyarrow'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
