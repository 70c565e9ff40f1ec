"""A server in int8, from examples to a bundle."""

from __future__ import annotations

from graft.v1 import model_pb2


def test_a_server_in_int8_trains_serves_and_exports(serve, connect, few, model):
    wire = connect(serve("--precision", "int8"))
    published = wire.publish(model, few)
    version = wire.model.GetVersion(
        model_pb2.GetVersionRequest(model=model, version=published.version)
    ).version
    assert any(it.startswith("The encoder computes in int8") for it in version.report.warnings)
    response = wire.predict(model, ["the lock is stuck 3", "my bill is wrong 2"])
    assert [it.single_label.scores[0].label for it in response.results] == ["lock", "bill"]
    paths = {it.path for it in wire.model.ExportModel(model_pb2.ExportModelRequest(model=model))}
    assert {"model.onnx", "report.json"} <= paths
