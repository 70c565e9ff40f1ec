"""Predictions as a data frame of pandas or polars, neither of which is imported before."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final

from graft._records.predicting.answer_columns import AnswerColumns
from graft._records.predicting.predictions import Prediction
from graft._records.predicting.suggestions import Suggestions

LIBRARIES: Final = ("pandas", "polars")
_PANDAS: Final = {"text": "object", "flag": "boolean", "number": "float64"}


def frame_of(predictions: Sequence[Prediction], library: str, index: Any, top_k: int) -> Any:
    """A data frame with a row for each prediction: see `Predictions.to_frame`.

    Raises:
        ValueError: The library is another one, or has no index.
        ModuleNotFoundError: It is not installed.
    """
    if library not in LIBRARIES:
        raise ValueError(f"library is {library!r}: frames are made of 'pandas' or 'polars'")
    if index is not None and library == "polars":
        raise ValueError("a frame of polars has no index: put it beside another by frame.hstack(answers)")
    task = task_of(predictions)
    columns = AnswerColumns(task, top_k=top_k if top_k > 1 else 0)
    rows = [columns.values(it) for it in predictions]
    cells = {name: [row[at] for row in rows] for at, name in enumerate(columns.names)}
    kinds = dict(zip(columns.names, columns.kinds, strict=True))
    if any(it.features for it in predictions):
        cells["features"] = [list(it.features) or None for it in predictions]
        kinds["features"] = "numbers"
    made = importlib.import_module(library)
    return _of_pandas(made, cells, kinds, index) if library == "pandas" else _of_polars(made, cells, kinds)


def suggestions_frame(suggestions: Suggestions, library: str) -> Any:
    """A data frame with a row for each suggestion: see `Suggestions.to_frame`.

    Raises:
        ValueError: The library is another one.
        ModuleNotFoundError: It is not installed.
    """
    if library not in LIBRARIES:
        raise ValueError(f"library is {library!r}: frames are made of 'pandas' or 'polars'")
    cells: dict[str, list[Any]] = {
        "index": [it.index for it in suggestions],
        "id": [it.id for it in suggestions],
        "text": [it.input if isinstance(it.input, str) else None for it in suggestions],
        "score": [it.score for it in suggestions],
        "why": [it.why for it in suggestions],
        "similar": [it.similar for it in suggestions],
        "uncertainty": [it.uncertainty for it in suggestions],
    }
    kinds = {
        "index": "number",
        "id": "text",
        "text": "text",
        "score": "number",
        "why": "text",
        "similar": "number",
        "uncertainty": "number",
    }
    answers = [it.prediction for it in suggestions]
    if answers and None not in answers:
        columns = AnswerColumns(suggestions.task, top_k=0)
        for name, kind, values in zip(
            columns.names,
            columns.kinds,
            zip(*(columns.values(it) for it in answers if it is not None), strict=True),
            strict=True,
        ):
            if name != "error":
                cells[name], kinds[name] = list(values), kind
    made = importlib.import_module(library)
    return _of_pandas(made, cells, kinds, None) if library == "pandas" else _of_polars(made, cells, kinds)


def task_of(predictions: Sequence[Prediction]) -> str:
    """What the predictions answer with, as far as they tell."""
    if any(it.value is not None for it in predictions):
        return "regression"
    several = any(score.selected is not None for it in predictions for score in it.scores)
    return "multi_label" if several else "single_label"


def _of_pandas(pandas: Any, cells: dict[str, list[Any]], kinds: dict[str, str], index: Any) -> Any:
    columns = {
        name: pandas.Series(values, index=index, dtype=_PANDAS.get(kinds[name], "object"))
        for name, values in cells.items()
    }
    return pandas.DataFrame(columns, index=index)


def _of_polars(polars: Any, cells: dict[str, list[Any]], kinds: dict[str, str]) -> Any:
    types = {
        "text": polars.String,
        "flag": polars.Boolean,
        "number": polars.Float64,
        "texts": polars.List(polars.String),
        "numbers": polars.List(polars.Float64),
    }
    return polars.DataFrame(cells, schema={name: types[kind] for name, kind in kinds.items()})
