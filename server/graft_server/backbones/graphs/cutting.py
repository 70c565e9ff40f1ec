"""Cuts an encoder's graph between two layers, and puts other weights into what is above the cut.

A model with retuned top layers shares everything below them with all others on its backbone: the graph is cut
once, and each such model brings an upper part of its own. Where the layers meet is read off the names of the
modules that the exporter leaves at every node, so no architecture has to be known here.

    whole(tokens) = above(below(tokens)), node for node

Imports onnx, so workers alone import it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from graft_server.backbones.graphs.cache import HIDDEN, EncoderCache
from graft_server.backbones.graphs.contract import CUT, Cut, Cutting
from graft_server.backbones.source import backbone_at
from graft_server.domain.errors import BackboneError
from graft_server.jobs.job import OnProgress, Place

_SCOPES = "pkg.torch.onnx.name_scopes"
_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16}
_NUMBERED = re.compile(r"^(?P<stack>.*)\.(?P<layer>\d+)$")


@dataclass(frozen=True, slots=True)
class Parts:
    """An encoder in two."""

    below: onnx.ModelProto
    """From the encoder's inputs to `hidden`, and to those views that the lower layers suffice for."""
    above: onnx.ModelProto
    """From `hidden` and what it needs of the encoder's inputs to the other views."""


@CUT.done_by
def cut_encoder(payload: Cutting, place: Place, _: OnProgress) -> Cut:
    """Puts the two parts of a cached encoder beside it.

    Raises:
        BackboneError: The graph cannot be cut there.
    """
    cache = EncoderCache.at(place)
    encoder_id, layer = payload.encoder_id, payload.layer
    backbone = backbone_at(place, payload.backbone, encoder_id)
    # Quantising drops the modules' names, but keeps those of the tensors.
    reference = onnx.load(str(cache.require(cache.graph(backbone.reference_id))))
    boundary = boundary_of(reference, layer, backbone.name)
    parts = cut(onnx.load(str(cache.require(cache.graph(encoder_id)))), boundary)
    cache.add(cache.below(encoder_id, layer), parts.below.SerializeToString())
    cache.add(cache.above(encoder_id, layer), parts.above.SerializeToString())
    cache.give(encoder_id, cache=payload.cache)
    return Cut()


def boundary_of(model: onnx.ModelProto, layer: int, name: str) -> str:
    """The tensor that the first `layer` layers hand on to the rest.

    Args:
        model: An encoder as the exporter made it.
        layer: 1 to the number of layers - 1.
        name: The backbone's name, for the message.

    Raises:
        BackboneError: No single tensor passes between the two.
    """
    graph = model.graph
    layer_of = _layers_of(graph)
    reached = _downstream(graph, {graph.input[0].name})
    made = {output: layer_of[i] for i, node in enumerate(graph.node) for output in node.output}
    crossing = {
        source
        for i, node in enumerate(graph.node)
        for source in node.input
        # What does not depend on the input itself (masks, positions) is computed again above.
        if source in reached and made.get(source) == layer - 1 and layer_of[i] == layer
    }
    if len(crossing) > 1:
        # Sizes that one layer has worked out are used by the next; they are worked out again above.
        types = _types_of(model)
        crossing = {it for it in crossing if types.get(it, TensorProto.FLOAT) in _FLOATS}
    if len(crossing) != 1:
        raise BackboneError(
            f"Backbone {name}: its graph cannot be cut after layer {layer} ({len(crossing)} tensors pass there), so "
            "its upper layers cannot be tuned alone: use the method full.",
            reason="BACKBONE_NOT_CUTTABLE",
        )
    return crossing.pop()


def cut(model: onnx.ModelProto, boundary: str) -> Parts:
    """Cuts at a tensor. The model given is used up."""
    graph = model.graph
    above = _downstream(graph, {boundary})
    upper = [it for it in graph.output if it.name in above]
    lower = [it for it in graph.output if it.name not in above]
    # Its axes are the batch's and the items', of which the runtime need not know the sizes beforehand.
    hidden = helper.make_tensor_value_info(HIDDEN, _types_of(model).get(boundary, TensorProto.FLOAT), None)
    _rename(graph, boundary, HIDDEN)
    return Parts(
        below=_extract(model, list(graph.input), [*lower, hidden], "below"),
        above=_extract(model, [hidden, *graph.input], upper, "above"),
    )


def joined(below: onnx.ModelProto, above: onnx.ModelProto) -> onnx.ModelProto:
    """One graph of the part below a cut and one above it; the views of the upper part alone remain. Uses both up."""
    own = {*(it.name for it in above.graph.input), *(it.name for it in above.graph.output)}
    for node in above.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                names[i] = name if name in own or not name else f"above/{name}"
        node.name = f"above/{node.name}"
    for it in above.graph.initializer:
        it.name = f"above/{it.name}"
    graph = helper.make_graph(
        [*below.graph.node, *above.graph.node],
        "encoder",
        list(below.graph.input),
        list(above.graph.output),
        [*below.graph.initializer, *above.graph.initializer],
    )
    whole = helper.make_model(
        graph,
        opset_imports=below.opset_import,
        ir_version=below.ir_version,
        producer_name="graft",
        functions=list(below.functions),
    )
    return pruned(whole)


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the nodes and weights that no output needs; changed in place."""
    graph = model.graph
    needed = {it.name for it in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    weights = [it for it in graph.initializer if it.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept[::-1])
    graph.initializer.extend(weights)
    return model


def replant(
    model: onnx.ModelProto,
    old: Mapping[str, NDArray[np.float32]],
    new: Mapping[str, NDArray[np.float32]],
) -> None:
    """Replaces weights in a graph by others of the same names and shapes, in place.

    The exporter folds transposes into the weights and names the results by numbers, so a weight is recognised by
    its content, as it is or transposed.

    Raises:
        BackboneError: A changed weight is not in the graph, or two that looked alike became different.
    """
    place: dict[bytes, tuple[str, bool]] = {}
    twins: set[str] = set()
    changed = {name for name in new if not np.array_equal(old[name], new[name])}
    for name in new:
        for transposed in (False, True) if old[name].ndim == 2 else (False,):
            key = _content(old[name].T if transposed else old[name])
            other = place.setdefault(key, (name, transposed))
            if other[0] != name and not np.array_equal(new[other[0]], new[name]):
                twins |= {name, other[0]}
    missing = set(changed)
    for it in model.graph.initializer:
        # An exact name is surer than content: some layers' biases begin equal.
        found = next(((name, False) for name in new if it.name.endswith(name)), None)
        found = found or place.get(_content(numpy_helper.to_array(it)))
        if found is None:
            continue
        name, transposed = found
        if name in twins and not it.name.endswith(name):
            raise _cannot_replant(name)
        array = new[name].T if transposed else new[name]
        it.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), it.name))
        missing.discard(name)
    if missing:
        raise _cannot_replant(min(missing))


def _cannot_replant(name: str) -> BackboneError:
    return BackboneError(
        f"The tuned weight {name} cannot be put into the encoder's graph: this backbone can be used with the method "
        "frozen only.",
        reason="BACKBONE_NOT_TUNABLE",
    )


def _content(array: NDArray[Any]) -> bytes:
    return repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()


def _layers_of(graph: onnx.GraphProto) -> list[int]:
    """Which layer each node belongs to; -1: none, nodes after the last layer count as one more."""
    found = [_stacks(node) for node in graph.node]
    counts = Counter(stack for stacks in found for stack in stacks)
    if not counts:
        return [-1] * len(found)
    # The outermost numbered modules with the most nodes: the layers, not what is numbered inside of them.
    stack = max(counts, key=lambda it: (counts[it], -len(it)))
    numbers = [stacks.get(stack, -1) for stacks in found]
    last = max(numbers)
    after = max(i for i, number in enumerate(numbers) if number == last)
    return [last + 1 if i > after else number for i, number in enumerate(numbers)]


def _stacks(node: onnx.NodeProto) -> dict[str, int]:
    """The numbered modules that a node is in: {"model.encoder.layer": 3}."""
    scopes = next((it.value for it in node.metadata_props if it.key == _SCOPES), "[]")
    names = re.findall(r"'([^']*)'", scopes)[:-1]  # the last one is the node's own name
    matches = [_NUMBERED.match(name) for name in names]
    return {it["stack"]: int(it["layer"]) for it in matches if it}


def _downstream(graph: onnx.GraphProto, sources: set[str]) -> set[str]:
    """The tensors that depend on any of some tensors, with these."""
    reached = set(sources)
    for node in graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
    return reached


def _extract(
    model: onnx.ModelProto,
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    name: str,
) -> onnx.ModelProto:
    needed, nodes = {it.name for it in outputs}, []
    given = {it.name for it in inputs}
    for node in reversed(model.graph.node):
        if needed.intersection(node.output) - given or (HIDDEN in node.output and HIDDEN not in given):
            nodes.append(node)
            needed.update(node.input)
    weights = [it for it in model.graph.initializer if it.name in needed]
    graph = helper.make_graph(nodes[::-1], name, [it for it in inputs if it.name in needed], outputs, weights)
    for it in graph.node:
        del it.metadata_props[:]
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name="graft",
        functions=list(model.functions),
    )


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The element types of tensors by name, as far as they can be told."""
    known: Iterable[onnx.ValueInfoProto] = onnx.shape_inference.infer_shapes(model).graph.value_info
    return {it.name: it.type.tensor_type.elem_type for it in known}
