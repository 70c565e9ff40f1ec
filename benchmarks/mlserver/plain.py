"""The encoder as it is exported without Graft: padded batches, a mask, mean pooling, and a linear head.

What somebody has who serves a sentence encoder with MLServer or Triton: `torch.onnx.export` of the model as it is in
`transformers`, in a folder that `runtime.py` reads. The head's weights are made up: only its cost matters here.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import torch
from transformers import AutoModel

from graft_server.backbones.backbone import Backbone


class _Classifier(torch.nn.Module):
    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.model = AutoModel.from_pretrained(backbone.folder, local_files_only=True, dtype=torch.float32)
        self.head = torch.nn.Linear(backbone.dimension, classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask[:, :, None].to(hidden.dtype)
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        return torch.softmax(self.head(pooled), dim=-1)


def export(backbone: Backbone, classes: int, folder: Path) -> None:
    """Writes model.onnx, tokenizer.json and preprocessing.json into a new folder."""
    folder.mkdir()
    ones = torch.ones((2, 7), dtype=torch.int64)
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Classifier(backbone, classes).eval(),
            (ones, ones),
            str(folder / "model.onnx"),
            dynamo=True,
            dynamic_shapes=(free, free),
            opset_version=18,
            input_names=["input_ids", "attention_mask"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
    shutil.copy(backbone.folder / "tokenizer.json", folder)
    (folder / "preprocessing.json").write_text(json.dumps({"max_tokens": backbone.max_tokens}))
