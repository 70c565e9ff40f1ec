"""Exports a backbone to the ONNX graph that serves it, and checks that the graph computes the same.

The family decides the form of the graph; see `backbones.torch.family`.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import numpy as np
import torch

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import GRAPH, NAMES, PARITY_RECORD, EncoderCache
from graft_server.backbones.graphs.contract import EXPORT, Exported, Making
from graft_server.backbones.preprocessing import Arrays, Preprocessor, odd_batches
from graft_server.backbones.source import backbone_at
from graft_server.backbones.torch.clip import export_names
from graft_server.backbones.torch.family import OPSET, Graph, torch_family
from graft_server.domain.errors import BackboneError
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.onnx_runtime import onnxruntime

PARITY = 5e-4
"""The largest difference allowed between the graph's features and torch's, on unit-norm features, relative to the
largest component of the row."""


@EXPORT.done_by
def export_encoder(payload: Making, place: Place, progress: OnProgress) -> Exported:
    """Exports one backbone, in float32 whatever its precision, into the cache.

    Raises:
        BackboneError: The checkpoint cannot be loaded, or the graph does not agree with torch.
    """
    backbone = backbone_at(place, payload.backbone, payload.encoder_id)
    preprocessor = backbone.preprocessor()
    progress(Progress("loading"))
    graph = torch_family(backbone).graph(backbone)
    cache = EncoderCache.at(place)
    with cache.new_entry(backbone.reference_id) as entry:
        progress(Progress("exporting"))
        write_graph(graph, preprocessor.collate(graph.items), entry / GRAPH)
        progress(Progress("checking"))
        parity = _check(backbone, preprocessor, entry / GRAPH)
        if backbone.family.names:
            progress(Progress("exporting its text encoder"))
            parity = max(parity, export_names(backbone, entry / NAMES))
        if not parity <= PARITY:  # the negation makes NaN fail too
            raise BackboneError(
                f"Backbone {backbone.name}: the exported graph differs from torch by {parity:.1e} of the largest "
                f"component (at most {PARITY:.0e} is accepted), so it is not served.",
                reason="EXPORT_PARITY",
            )
        (entry / PARITY_RECORD).write_text(json.dumps({"format": 1, "parity": parity}))
    cache.give(backbone.reference_id, cache=payload.cache)
    return Exported(parity)


def write_graph(graph: Graph, batch: Arrays, path: Path, *, starred: bool = False) -> None:
    """Writes a module's graph.

    Args:
        graph: The module, and what of its inputs differs from batch to batch.
        batch: What it is traced on: its arguments, in their order.
        path: Where to.
        starred: Whether the module takes them as `*arguments`.
    """
    arguments = tuple(torch.from_numpy(array) for array in batch.values())
    shapes = tuple(dict(graph.dynamic.get(name, {})) for name in batch)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.module,
            arguments,
            str(path),
            dynamo=True,
            dynamic_shapes=(shapes,) if starred else shapes,
            opset_version=OPSET,
            input_names=list(batch),
            output_names=list(graph.views),
            external_data=False,
            verbose=False,
        )


def _check(backbone: Backbone, preprocessor: Preprocessor, path: Path) -> float:
    """The largest relative difference to torch."""
    family = torch_family(backbone)
    model = family.load(backbone)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    off = []
    for items in odd_batches(preprocessor):
        graph = session.run(None, preprocessor.collate(items))
        for got, right in zip(graph, family.reference(backbone, model, items), strict=True):
            off.append(np.abs(got - right).max(axis=1) / np.abs(right).max(axis=1))
    return float(np.concatenate(off).max())
