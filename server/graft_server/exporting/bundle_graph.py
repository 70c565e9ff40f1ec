"""One ONNX graph from padded token ids to calibrated probabilities: prefix, encoder and head joined.

The encoder reads packed tokens, which no tokenizer returns. A prefix of a dozen nodes packs the usual padded
arrays, so a caller of the bundle passes `input_ids` and `attention_mask` as to any other text model.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper

from graft_server.domain.errors import BackboneError
from graft_server.domain.views import names_of

INPUTS = ("input_ids", "attention_mask")
_ENCODER, _HEAD, _PACKING = "encoder/", "head/", "packing/"
_OLDEST_IR = 8
_IR_OF_TYPES: dict[int, int] = {
    TensorProto.FLOAT8E4M3FN: 9,
    TensorProto.FLOAT8E4M3FNUZ: 9,
    TensorProto.FLOAT8E5M2: 9,
    TensorProto.FLOAT8E5M2FNUZ: 9,
    TensorProto.UINT4: 10,
    TensorProto.INT4: 10,
    TensorProto.FLOAT4E2M1: 11,
}
"""The IR version that a type of elements came with; see onnx.in.proto."""
_MAX_PROTO_BYTES = (1 << 31) - (1 << 24)
"""Protobuf's limit of 2 GiB, less room for everything but the weights."""


def write_graph(
    encoder: Path | onnx.ModelProto, head: bytes, view: str, path: Path, *, packed: bool = True
) -> list[Path]:
    """Writes the graph, checked, and returns the files it made: one, unless the weights exceed 2 GiB.

    Inputs: `input_ids` and `attention_mask`, (batch, length) int64, padded on the right, no row without a token;
    or the inputs of the encoder's graph, if it does not read packed tokens.
    Outputs: the outputs of the head (see `heads.graph`), and `features` (batch, dimension), float32.

    Args:
        encoder: The encoder's graph, or its file. Used up.
        head: The head's graph.
        view: The encoder's outputs that the head reads, joined by "+".
        path: The file to write.
        packed: Whether the encoder reads packed tokens.

    Raises:
        BackboneError: The encoder's graph cannot be joined to the head's.
    """
    loaded = onnx.load(str(encoder)) if isinstance(encoder, Path) else encoder
    return _save(_composed(loaded, onnx.load_model_from_string(head), view, packed=packed), path)


def _composed(encoder: onnx.ModelProto, head: onnx.ModelProto, view: str, *, packed: bool) -> onnx.ModelProto:
    opsets = _opsets(encoder, head)
    # The exporter records each node's source lines, with paths of the exporting machine.
    _strip(encoder.graph)
    compose.add_prefix_graph(encoder.graph, _ENCODER, rename_inputs=packed, inplace=True)
    compose.add_prefix_graph(head.graph, _HEAD, rename_inputs=False, rename_outputs=False, inplace=True)
    packing, constants = _packing() if packed else ([], [])
    views = [_ENCODER + it for it in names_of(view)]
    joint = helper.make_node("Concat", views, ["features"], name="features", axis=1)
    graph = onnx.GraphProto(name="classifier")
    graph.node.extend([*packing, *encoder.graph.node, joint, *head.graph.node])
    graph.initializer.extend([*constants, *encoder.graph.initializer, *head.graph.initializer])
    padded = ["batch", "length"]
    if packed:
        graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT64, padded) for name in INPUTS)
    else:
        graph.input.extend(_with_batch(encoder.graph.input))
    features, *others = _signature(head)
    graph.output.extend([*others, features])
    model = helper.make_model(
        graph, opset_imports=opsets, producer_name="graft", functions=list(encoder.functions)
    )
    model.ir_version = oldest_ir(model)
    return model


def for_older_runtimes(model: bytes) -> bytes:
    """Returns a model in the oldest form that it can have."""
    loaded = onnx.load_model_from_string(model)
    loaded.ir_version = oldest_ir(loaded)
    serialised: bytes = loaded.SerializeToString(deterministic=True)
    return serialised


def oldest_ir(model: onnx.ModelProto) -> int:
    """Returns the oldest IR version that a model can be read by; the exporter writes the newest one that it knows.

    A runtime refuses a newer version than its own, whatever the model consists of; onnxruntime 1.17 knows 9.
    """
    least: int = helper.find_min_ir_version_for(list(model.opset_import), ignore_unknown=True)
    types = {it.data_type for it in model.graph.initializer}
    for node in (*model.graph.node, *(it for function in model.functions for it in function.node)):
        types |= {it.t.data_type for it in node.attribute if it.HasField("t")}
        types |= {it.i for it in node.attribute if node.op_type == "Cast" and it.name == "to"}
    return max(_OLDEST_IR, least, *(_ir_of_type(int(it)) for it in types))


def _ir_of_type(kind: int) -> int:
    newest = int(onnx.IR_VERSION)
    return _IR_OF_TYPES.get(kind, newest if kind > TensorProto.FLOAT4E2M1 else 0)


def _packing() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Returns nodes that compute the same as `backbones.text.packing.pack`, from padded arrays.

    `rows` is as wide as the padding, and so a little wider than necessary.
    """
    nodes: list[onnx.NodeProto] = []
    constants = [
        numpy_helper.from_array(np.array(value, np.int64), _PACKING + name)
        for name, value in {"flat": [-1], "first": [0], "zero": 0, "one": 1, "along": 1, "none": -1}.items()
    ]

    def add(operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def own(name: str) -> str:
        return _PACKING + name

    ids, mask = INPUTS
    add("Cast", [mask], own("real"), to=TensorProto.BOOL)
    add("Cast", [own("real")], own("ones"), to=TensorProto.INT64)
    add("Reshape", [own("real"), own("flat")], own("flat_real"))
    add("Reshape", [own("ones"), own("flat")], own("flat_ones"))
    # The places of the tokens in the padded array, row by row.
    add("NonZero", [own("flat_real")], own("places"))
    cells = add("Squeeze", [own("places"), own("first")], _ENCODER + "cells")
    add("Reshape", [ids, own("flat")], own("flat_ids"))
    add("Gather", [own("flat_ids"), cells], _ENCODER + "input_ids")
    add("CumSum", [own("ones"), own("along")], own("counts"))
    add("Sub", [own("counts"), own("one")], own("positions"))
    add("Reshape", [own("positions"), own("flat")], own("flat_positions"))
    add("Gather", [own("flat_positions"), cells], _ENCODER + "position_ids")
    # The reverse: the number of the token at each place, -1 where there is none.
    add("CumSum", [own("flat_ones"), own("zero")], own("flat_counts"))
    add("Sub", [own("flat_counts"), own("one")], own("numbers"))
    add("Where", [own("flat_real"), own("numbers"), own("none")], own("flat_rows"))
    add("Shape", [mask], own("shape"))
    add("Reshape", [own("flat_rows"), own("shape")], _ENCODER + "rows")
    return nodes, constants


def _signature(head: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Returns the head's input and outputs with their rows called "batch"."""
    return _with_batch([*head.graph.input, *head.graph.output])


def _with_batch(infos: Iterable[onnx.ValueInfoProto]) -> list[onnx.ValueInfoProto]:
    infos = list(infos)
    for info in infos:
        rows = info.type.tensor_type.shape.dim[0]
        if rows.dim_param:  # an output that describes the head itself has no rows
            rows.dim_param = "batch"
    return infos


def _opsets(encoder: onnx.ModelProto, head: onnx.ModelProto) -> list[onnx.OperatorSetIdProto]:
    versions: dict[str, int] = {}
    for opset in [*encoder.opset_import, *head.opset_import]:
        if versions.setdefault(opset.domain, opset.version) != opset.version:
            raise BackboneError(
                f"The encoder was exported with ONNX opset {versions[opset.domain]}, but heads are written with "
                f"opset {opset.version}: empty the server's cache of encoders and restart it to export anew.",
                reason="BUNDLE_OPSET",
            )
    return [helper.make_opsetid(domain, version) for domain, version in versions.items()]


def _strip(graph: onnx.GraphProto) -> None:
    del graph.metadata_props[:], graph.value_info[:]
    graph.doc_string = ""
    named: Iterable[Any] = [*graph.node, *graph.initializer, *graph.input, *graph.output]
    for it in named:
        del it.metadata_props[:]
        it.doc_string = ""


def _save(model: onnx.ModelProto, path: Path) -> list[Path]:
    weights = path.with_name(path.name + ".data")
    if sum(len(it.raw_data) for it in model.graph.initializer) > _MAX_PROTO_BYTES:
        onnx.save_model(
            model, str(path), save_as_external_data=True, location=weights.name, size_threshold=1024
        )
        onnx.checker.check_model(str(path), full_check=True)
        return [path, weights]
    data = model.SerializeToString(deterministic=True)
    onnx.checker.check_model(data, full_check=True)
    path.write_bytes(data)
    return [path]
