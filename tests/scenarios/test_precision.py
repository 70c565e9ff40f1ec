"""A server in int8, from examples to a bundle."""

from __future__ import annotations

from graft.v1 import model_pb2, prediction_pb2, types_pb2


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


def test_a_version_is_not_served_in_another_precision_than_it_was_adapted_in(
    serve, connect, few, model, tmp_path
):
    first = serve(store=tmp_path / "store")
    connect(first).publish(model, few)
    first.stop()
    wire = connect(serve("--precision", "int8", store=tmp_path / "store"))
    message = prediction_pb2.PredictRequest(model=model, inputs=[types_pb2.Input(text="a bill")])
    assert wire.fails(wire.prediction.Predict, message).reason == "ENCODER_MISMATCH"
