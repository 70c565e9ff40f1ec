"""A graph in which each product with weights has room for adapters of several models; see `backbones.graphs.adapters`.

    y = x W  becomes  y = x W + (cells((lanes(x) A) B + c) where it is own, and otherwise 0)

where `lanes` gathers the places (tokens) of each model and `cells` puts what was computed back to where they are.
Everything else of the graph stays as it is, so rows without an adapter go along.

Imports onnx, so workers alone import it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from graft_server.backbones.graphs.adapters import CELLS, DOWN, LANES, OFFSET, OWN, UP, Adapter, product_key
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.graphs.contract import ADAPT, Cut, Cutting
from graft_server.backbones.graphs.cutting import pruned
from graft_server.backbones.source import backbone_at
from graft_server.domain.errors import BackboneError
from graft_server.domain.views import POOLED
from graft_server.jobs.job import OnProgress, Place

_ZERO = "adapted/zero"


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product of activations with weights."""

    node: onnx.NodeProto
    weights: onnx.TensorProto
    transposed: bool
    """Whether the weights are held as (out, in)."""

    @property
    def matrix(self) -> np.ndarray:
        """The weights, shape (in, out)."""
        found = numpy_helper.to_array(self.weights)
        return found.T if self.transposed else found


@ADAPT.done_by
def adapt_encoder(payload: Cutting, place: Place, _: OnProgress) -> Cut:
    """Puts a graph with room for adapters beside a cached encoder: of its part above a cut, or of all of it.

    Raises:
        BackboneError: The graph has no products that adapters could be added to.
    """
    cache = EncoderCache.at(place)
    encoder_id, layer = payload.encoder_id, payload.layer
    backbone = backbone_at(place, payload.backbone, encoder_id)
    graph = cache.above(encoder_id, layer) if layer else cache.graph(encoder_id)
    found = with_adapters(onnx.load(str(cache.require(graph))), backbone.name)
    cache.add(cache.adapted(encoder_id, layer), found.SerializeToString())
    cache.give(encoder_id, cache=payload.cache)
    return Cut()


def with_adapters(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Gives each product with weights room for adapters. The model given is used up.

    Args:
        model: An encoder in float32, or its part above a cut.
        name: The backbone's name, for the message.

    Raises:
        BackboneError: There is none.
    """
    graph = model.graph
    found = {it.node.output[0]: it for it in products(model)}
    if not found:
        raise BackboneError(
            f"Backbone {name}: its graph has no products that low-rank updates could be added to.",
            reason="BACKBONE_NOT_ADAPTABLE",
        )
    nodes: list[onnx.NodeProto] = []
    gathered: dict[str, str] = {}
    declared: dict[str, onnx.ValueInfoProto] = {}
    for node in list(graph.node):
        nodes.append(node)
        product = found.get(node.output[0])
        if product is not None:
            nodes += _added(product, gathered, declared)
    graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), _ZERO))
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.extend(
        [
            helper.make_tensor_value_info(LANES, TensorProto.INT64, ["lane", "place"]),
            helper.make_tensor_value_info(CELLS, TensorProto.INT64, ["total"]),
            helper.make_tensor_value_info(OWN, TensorProto.BOOL, ["total", 1]),
            *declared.values(),
        ]
    )
    return model


def products(model: onnx.ModelProto) -> Iterator[Product]:
    """The products of activations with float32 weights, in the graph's order."""
    weights = {
        it.name: it
        for it in model.graph.initializer
        if len(it.dims) == 2 and it.data_type == TensorProto.FLOAT
    }
    for node in model.graph.node:
        if len(node.input) < 2 or node.input[1] not in weights or node.input[0] in weights:
            continue
        given = {it.name: helper.get_attribute_value(it) for it in node.attribute}
        if node.op_type == "MatMul":
            yield Product(node, weights[node.input[1]], False)
        elif node.op_type == "Gemm" and given.get("alpha", 1.0) == 1.0 and not given.get("transA", 0):
            yield Product(node, weights[node.input[1]], bool(given.get("transB", 0)))


def merged(model: onnx.ModelProto, adapter: Adapter) -> onnx.ModelProto:
    """A graph that does with its weights alone what one with room for adapters does with this one, to "pooled" alone.

    Args:
        model: An encoder in float32, or its part above a cut; used up.
        adapter: What is added.

    Raises:
        BackboneError: The graph lacks a product of the adapter.
    """
    left, done = dict(adapter.products), set[str]()
    nodes: list[onnx.NodeProto] = []
    offsets: list[onnx.TensorProto] = []
    of = {it.node.output[0]: (it, product_key(it.matrix)) for it in products(model)}
    for node in list(model.graph.node):
        nodes.append(node)
        product, key = of.get(node.output[0], (None, ""))
        low = adapter.products.get(key)
        if product is None or low is None:
            continue
        left.pop(key, None)
        if product.weights.name not in done:
            done.add(product.weights.name)
            weights = product.matrix + low.matrix
            weights = weights.T if product.transposed else weights
            product.weights.CopyFrom(
                numpy_helper.from_array(np.ascontiguousarray(weights), product.weights.name)
            )
        if low.offset.any():
            out, plain = node.output[0], f"{node.output[0]}/plain"
            node.output[0] = plain
            offsets.append(numpy_helper.from_array(low.offset, f"{out}/offset"))
            # Where graphs are joined, nodes are told apart by their names.
            nodes.append(helper.make_node("Add", [plain, offsets[-1].name], [out], name=f"{out}/add"))
    if left:
        raise BackboneError(
            "The encoder's graph lacks a product that the version's low-rank updates belong to: commit again.",
            reason="BACKBONE_NOT_ADAPTABLE",
        )
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(offsets)
    for output in [it for it in model.graph.output if it.name != POOLED]:
        model.graph.output.remove(output)
    return pruned(model)


def _added(
    product: Product, gathered: dict[str, str], declared: dict[str, onnx.ValueInfoProto]
) -> Iterator[onnx.NodeProto]:
    """The nodes that add adapters to a product; its own output gets another name."""
    node, matrix = product.node, product.matrix
    key, (width, out) = product_key(matrix), matrix.shape
    source, result = node.input[0], node.output[0]
    plain = f"{result}/plain"
    node.output[0] = plain
    for name, shape in {
        DOWN + key: ["lane", width, f"rank {key}"],
        UP + key: ["lane", f"rank {key}", out],
        OFFSET + key: ["lane", 1, out],
    }.items():
        declared.setdefault(name, helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    own = f"{result}/adapted"
    if source not in gathered:
        # Products of one layer's attention read the same: it is put into lanes once.
        gathered[source] = f"{own}/lanes"
        width_name = f"{own}/width"
        yield helper.make_node("Constant", [], [width_name], value_ints=[-1, width])
        yield helper.make_node("Reshape", [source, width_name], [f"{own}/places"])
        yield helper.make_node("Gather", [f"{own}/places", LANES], [gathered[source]], axis=0)
    yield helper.make_node("MatMul", [gathered[source], DOWN + key], [f"{own}/low"])
    yield helper.make_node("MatMul", [f"{own}/low", UP + key], [f"{own}/high"])
    yield helper.make_node("Add", [f"{own}/high", OFFSET + key], [f"{own}/offset"])
    yield helper.make_node("Constant", [], [f"{own}/out"], value_ints=[-1, out])
    yield helper.make_node("Reshape", [f"{own}/offset", f"{own}/out"], [f"{own}/cells"])
    yield helper.make_node("Gather", [f"{own}/cells", CELLS], [f"{own}/back"], axis=0)
    yield helper.make_node("Where", [OWN, f"{own}/back", _ZERO], [f"{own}/masked"])
    yield helper.make_node("Shape", [plain], [f"{own}/shape"])
    yield helper.make_node("Reshape", [f"{own}/masked", f"{own}/shape"], [f"{own}/shaped"])
    yield helper.make_node("Add", [plain, f"{own}/shaped"], [result])
