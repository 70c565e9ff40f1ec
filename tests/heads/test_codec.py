"""Heads of each task as bytes: the same head comes back, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pytest

from graft_server.domain.errors import CorruptError, NewerError
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.multi_label import MultiLabelHead
from graft_server.heads.regression import RegressionHead
from graft_server.heads.single_label import SingleLabelHead

ROWS = 50


def rows_for(head: Any) -> np.ndarray:
    rows = np.random.default_rng(1).standard_normal((ROWS, head.dimension))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def stored(head: Any) -> dict[str, Any]:
    """The head's bytes as plain data, to be spoilt."""
    found: dict[str, Any] = msgspec.msgpack.decode(encode(head))
    return found


def refused(data: dict[str, Any]) -> None:
    with pytest.raises(CorruptError) as raised:
        decode(msgspec.msgpack.encode(data))
    assert raised.value.reason == "HEAD_CORRUPT"


def packed(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": array.shape, "data": array.tobytes()}


def test_the_same_head_comes_back(task_head: Any) -> None:
    again: Any = decode(encode(task_head))
    assert type(again) is type(task_head)
    assert (again.kind, again.view, again.dimension) == ("test", "pooled", 24)
    one, other = task_head.scores(rows_for(task_head)), again.scores(rows_for(task_head))
    for field in fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))
    assert encode(again) == encode(task_head)


def test_the_graph_of_what_comes_back_answers_as_the_head_does(task_head: Any) -> None:
    graph = to_onnx(decode(encode(task_head)))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    rows = rows_for(task_head)
    outputs = task_head.scores(rows)
    names = [field.name for field in fields(outputs)]
    for name, values in zip(names, session.run(names, {"features": rows}), strict=True):
        np.testing.assert_allclose(values, getattr(outputs, name), atol=2e-5)


def test_no_cut_of_it_is_a_head(task_head: Any) -> None:
    whole = encode(task_head)
    for size in range(0, len(whole), 97):
        with pytest.raises(CorruptError):
            decode(whole[:size])


def test_a_head_of_another_format_or_task_is_refused(task_head: Any) -> None:
    data = stored(task_head)
    with pytest.raises(NewerError, match=r"newer release of Graft \(format 2; this release reads up to 1\)"):
        decode(msgspec.msgpack.encode(data | {"format": 2}))
    refused(data | {"task": "translation"})
    other = "regression" if isinstance(task_head, MultiLabelHead) else "multi_label"
    refused(data | {"task": other})


def test_a_head_that_does_not_say_its_task_is_a_single_label_one(
    head: SingleLabelHead, task_head: Any
) -> None:
    assert "task" not in stored(head)
    assert isinstance(decode(encode(head)), SingleLabelHead)
    refused({name: value for name, value in stored(task_head).items() if name != "task"})


def test_a_head_without_a_map_is_refused(task_head: Any) -> None:
    refused(stored(task_head) | {"maps": []})


def test_maps_of_other_widths_than_the_anchors_are_refused(task_head: Any) -> None:
    data = stored(task_head)
    data["maps"][0]["weight"] = packed(np.zeros((23, len(task_head.maps[0].bias)), np.float32))
    refused(data)


def test_thresholds_of_another_number_than_the_labels_are_refused(multi_label_head: MultiLabelHead) -> None:
    refused(stored(multi_label_head) | {"thresholds": packed(np.zeros(4, np.float32))})


@pytest.mark.parametrize("changed", [{"below": float("nan")}, {"above": float("inf")}])
def test_an_interval_without_an_end_is_refused(
    regression_head: RegressionHead, changed: dict[str, float]
) -> None:
    refused(stored(regression_head) | changed)


def test_a_value_of_two_columns_is_refused(multi_label_head: MultiLabelHead, regression_head: Any) -> None:
    wide = replace(regression_head, maps=multi_label_head.maps, spread=None)
    with pytest.raises(CorruptError):
        decode(encode(wide))


@pytest.mark.parametrize("changed", [{"shape": [5, 5]}, {"dtype": "<f8"}, {"dtype": "|O"}, {"data": b"123"}])
def test_an_array_that_is_none_is_refused(task_head: Any, changed: dict[str, Any]) -> None:
    data = stored(task_head)
    data["maps"][0]["bias"] |= changed
    refused(data)
