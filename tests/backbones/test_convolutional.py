"""The views of convolutional encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest


@pytest.mark.parametrize(
    ("channels", "height", "width", "sides"),
    [(64, 8, 8, 4), (512, 28, 28, 2), (4096, 28, 28, 1), (8, 3, 5, 3), (8, 1, 1, 1), (192, 28, 28, 3)],
)
def test_a_grid_is_as_fine_as_its_bounds_and_the_places_allow(channels, height, width, sides):
    import torch  # noqa: PLC0415 (torch only where it is needed)

    from graft_server.backbones.torch.convolutional import cells  # noqa: PLC0415

    hidden = torch.rand(2, channels, height, width)
    assert cells(hidden).shape == (2, channels * sides * sides)


def test_a_grid_knows_where_something_is_and_its_mean_does_not():
    import torch  # noqa: PLC0415

    from graft_server.backbones.torch.convolutional import cells  # noqa: PLC0415

    hidden = torch.zeros(2, 3, 8, 8)
    hidden[0, 1, :2, :2] = 1.0
    hidden[1, 1, 6:, 6:] = 1.0
    left, right = cells(hidden).reshape(2, 3, 4, 4)
    assert left[1, 0, 0] == right[1, 3, 3] == 1.0
    assert left.sum() == right.sum() == 1.0
    assert torch.equal(hidden[0].mean((-2, -1)), hidden[1].mean((-2, -1)))


def test_a_grid_that_does_not_divide_the_places_is_exported(tmp_path: Path):
    import torch  # noqa: PLC0415

    from graft_server.backbones.torch.convolutional import cells  # noqa: PLC0415
    from graft_server.backbones.torch.export import write_graph  # noqa: PLC0415
    from graft_server.backbones.torch.family import Graph  # noqa: PLC0415

    class Cells(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return cells(hidden)

    hidden, path = torch.rand(5, 192, 28, 28), tmp_path / "cells.onnx"  # ConvNeXt-T: 3 cells of 28 places
    dynamic = {"hidden": {0: torch.export.Dim.DYNAMIC}}
    graph = Graph(Cells().eval(), [], dynamic, ("grid",), [])
    write_graph(graph, {"hidden": hidden[:2].numpy()}, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"hidden": hidden.numpy()})
    np.testing.assert_allclose(found, cells(hidden).numpy(), atol=1e-6)
