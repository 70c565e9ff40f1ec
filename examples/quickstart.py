"""Teach a model from a file and ask it something. Needs a server: graft-server serve --store ./store."""

from pathlib import Path

import graft

TRAIN = Path(__file__).parent / "intents" / "train.csv"

with graft.Client() as client:
    result = client.adapt("bikes/intents", graft.read_examples(TRAIN, input="text", label="intent"))
    print(
        f"version {result.version}: {result.report.examples} examples, accuracy {result.report.accuracy:.1%}"
    )

    for prediction in client.predict("bikes/intents", ["the lock stays shut", "you charged me twice"]):
        print(f"{prediction.label} ({prediction.probability:.0%})")

    bundle = client.export("bikes/intents", "build/quickstart-bundle")
    print(f"runs without a server: {bundle.onnx}")
