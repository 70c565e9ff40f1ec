"""The same work as an MLServer custom runtime: the same encoder graph, the same tokenizer, a linear head.

It runs in MLServer's own environment, which has neither this project nor torch; see `benchmarks/peers.py`.
MLServer's adaptive batching hands several requests' texts to `predict` at once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from tokenizers import Tokenizer

from mlserver import MLModel


class Classifier(MLModel):
    """Texts to the index of the best label."""

    async def load(self) -> bool:
        """Loads the graph that Graft exported as a bundle: token ids, padded, to probabilities."""
        folder = Path(os.environ["BUNDLE"])
        settings = json.loads((folder / "preprocessing.json").read_text())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(settings["max_tokens"])
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("THREADS", "2"))
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Classifies a batch."""
        texts = StringCodec.decode_input(payload.inputs[0])
        encodings = self._tokenizer.encode_batch(texts)
        feeds = {
            "input_ids": np.array([it.ids for it in encodings], np.int64),
            "attention_mask": np.array([it.attention_mask for it in encodings], np.int64),
        }
        (probabilities,) = self._session.run(["probabilities"], feeds)
        best = [str(index) for index in probabilities.argmax(axis=1)]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("label", best)])
