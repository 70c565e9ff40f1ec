"""Encoders at less than full precision: made from the exported float32 graph, and held against it.

int8, for the CPU: the weights of the matrix products are rounded to integers once, one scale an output channel;
what they are multiplied with is rounded as it comes, one scale a batch. So a text's features depend a little on
who shares its batch. One scale a tensor for the weights too would be no faster, but moves features four times as
far (Banking77: a mean cosine of 0.970 instead of 0.9925).

fp16, for GPUs: everything is computed in half precision, features come out as float32.

Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.transformers.float16 import convert_float_to_float16

from graft_server.backbones.graphs.cache import GRAPH, EncoderCache
from graft_server.backbones.graphs.contract import REDUCE, Making, Reduced
from graft_server.backbones.preprocessing import Arrays, odd_batches
from graft_server.backbones.source import backbone_at
from graft_server.domain.errors import BackboneError
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.onnx_runtime import onnxruntime

LEAST_COSINE = {"int8": 0.97, "fp16": 0.999}
"""How near each text's features must be to those in float32. The default backbone's worst on odd shapes is 0.987
in int8 (0.80 with one scale a tensor, which this refuses) and, on the CPU, 0.9996 in fp16."""

_PROVIDERS = {"int8": "CPUExecutionProvider", "fp16": "CUDAExecutionProvider"}


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near an encoder's features are to those in float32, over texts of odd lengths and all views."""

    least: float
    """The smallest cosine."""
    mean: float


@REDUCE.done_by
def reduce_encoder(payload: Making, place: Place, progress: OnProgress) -> Reduced:
    """Makes an int8 or fp16 encoder from the cached float32 one.

    Raises:
        BackboneError: The features are too far from those in float32.
    """
    backbone = backbone_at(place, payload.backbone, payload.encoder_id)
    name, precision = backbone.name, backbone.precision
    preprocessor = backbone.preprocessor()
    cache = EncoderCache.at(place)
    reference = cache.require(cache.graph(backbone.reference_id))
    with cache.new_entry(backbone.encoder_id) as entry:
        progress(Progress(f"making the {precision} graph"))
        {"int8": to_int8, "fp16": to_fp16}[precision](reference, entry / GRAPH)
        progress(Progress("checking"))
        found = nearness(
            reference,
            entry / GRAPH,
            batches=map(preprocessor.collate, odd_batches(preprocessor)),
            provider=_PROVIDERS[precision],
        )
        if not found.least >= LEAST_COSINE[precision]:  # the negation makes NaN fail too
            raise BackboneError(
                f"Backbone {name}: its features in {precision} have a cosine of {found.least:.4f} to those in "
                f"float32 (at least {LEAST_COSINE[precision]} is accepted), so it is not served. Use "
                "--precision fp32.",
                reason="PRECISION_PARITY",
            )
    cache.give(backbone.encoder_id, cache=payload.cache)
    return Reduced(found.least, found.mean)


def to_int8(reference: Path, path: Path) -> None:
    """Writes the graph with the weights of its matrix products in int8.

    Raises:
        BackboneError: It has none. Convolutions would not gain, nor would GPT-2's layers, which are exported with the
            bias in one operation.
    """
    model = onnx.load(str(reference))
    if not _products(model.graph):
        raise BackboneError(
            "The backbone's graph has no matrix products that int8 would speed up, so nothing of it would change. Use "
            "--precision fp32.",
            reason="PRECISION_UNSUPPORTED",
        )
    # The quantizer replaces products, and then takes the shapes that were noted of them for wrong ones.
    del model.graph.value_info[:]
    quantize_dynamic(
        model,
        str(path),
        op_types_to_quantize=["MatMul"],
        nodes_to_exclude=_wide_at_the_bottom(model.graph),
        per_channel=True,
        weight_type=QuantType.QInt8,
        # Seven bits: with eight, processors without VNNI saturate, and one encoder_id would give other features
        # there. Costs nothing in speed, and 0.0015 of mean cosine on Banking77.
        reduce_range=True,
        # Attention multiplies activations with each other: neither faster nor as accurate in integers.
        extra_options={"MatMulConstBOnly": True},
    )


def _products(graph: onnx.GraphProto) -> list[tuple[str, tuple[int, ...]]]:
    """The names of the matrix products with weights, from the bottom up, and the weights' shapes."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    return [
        (node.name, shapes[node.input[1]])
        for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in shapes
    ]


def _wide_at_the_bottom(graph: onnx.GraphProto) -> list[str]:
    """The matrix products that read the wide middle of the lower third of the layers: they stay in float32.

    One scale has to do for all that a product reads, and there, behind the activation function, a few large
    values make it coarse. Leaving 2 of 36 out takes a third of the error away (mean cosine on Banking77 0.9925 to
    0.9950) and a tenth of the speed (2.16 to 1.92 times that of float32).
    """
    narrowing = [name for name, shape in _products(graph) if np.diff(shape)[0] < 0]
    return narrowing[: round(len(narrowing) / 3)]


def to_fp16(reference: Path, path: Path) -> None:
    """Writes the graph computed in half precision; inputs and outputs stay as they are."""
    onnx.save(convert_float_to_float16(onnx.load(str(reference)), keep_io_types=True), str(path))


def nearness(reference: Path, path: Path, *, batches: Iterable[Arrays], provider: str) -> Nearness:
    """Compares two encoders' unit-norm features.

    Args:
        reference: The graph in float32; run on the CPU.
        path: The other graph.
        batches: Inputs of both graphs.
        provider: Where the other graph is run.
    """
    right = onnxruntime.InferenceSession(str(reference), providers=["CPUExecutionProvider"])
    other = onnxruntime.InferenceSession(str(path), providers=[provider])
    cosines: list[NDArray[np.float32]] = []
    for batch in batches:
        pairs = zip(right.run(None, batch), other.run(None, batch), strict=True)
        cosines += [(one * two).sum(axis=1) for one, two in pairs]
    every = np.concatenate(cosines)
    return Nearness(float(every.min()), float(every.mean()))
