"""The interface of a family of architectures in torch: loading, exporting, checking and unfreezing.

Each module of this package that `backbones.families` names has a `FAMILY` of this type.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from transformers import AutoModel

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.torch.weights import WRAPPERS, refuse_quantization, require_weights
from graft_server.domain.errors import BackboneError

OPSET = 18

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """The exported part of a model."""

    module: torch.nn.Module
    """From the graph's inputs, in their order, to the views, each (n, d) with unit-norm rows."""
    items: Sequence[Any]
    """A batch to trace it with; see `preprocessing.Preprocessor.collate`. No two of its lengths should be equal."""
    dynamic: Mapping[str, Mapping[int, Any]]
    """Input name to the axes whose size differs from batch to batch."""
    views: tuple[str, ...]
    """The names of the module's views. "pooled", on which everything else is built, comes first."""
    layers: Sequence[torch.nn.Module]
    """The module's layers from the bottom up: fine-tuning can unfreeze them, the last ones first."""


class TorchFamily(Protocol):
    """See the module's docstring."""

    def load(self, backbone: Backbone) -> torch.nn.Module:
        """Loads the model in float32, ready to compute features. Raises BackboneError."""

    def graph(self, backbone: Backbone) -> Graph:
        """What is exported. Raises BackboneError."""

    def reference(
        self, backbone: Backbone, model: torch.nn.Module, items: Sequence[Any]
    ) -> Sequence[NDArray[Any]]:
        """The views of items by torch alone, one item at a time, sharing nothing with the graph."""


def torch_family(backbone: Backbone) -> TorchFamily:
    """The family of a backbone's architecture."""
    module = importlib.import_module(f"graft_server.backbones.torch.{backbone.family.module}")
    return cast("TorchFamily", module.FAMILY)


def load(
    backbone: Backbone, auto: Any = AutoModel, *, unused: Sequence[str] = (), **options: Any
) -> torch.nn.Module:
    """Loads a checkpoint through one of transformers' Auto classes: safetensors only, no code of its own.

    Args:
        backbone: Where it is.
        auto: The class, or a model's.
        unused: The beginnings of the names of weights that no view depends on; the files may lack these.
        options: More for `from_pretrained`.

    Raises:
        BackboneError: transformers cannot load it, or weights are missing or not usable; see `weights`.
    """
    refuse_quantization(backbone)
    try:
        model, info = auto.from_pretrained(
            backbone.folder,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            key_mapping=dict(WRAPPERS),
            **options,
        )
    except (ImportError, OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        _log.exception("loading backbone %s", backbone.name)
        raise BackboneError(
            f"Backbone {backbone.name}: transformers cannot load it ({type(error).__name__}); the server's log has "
            "the details.",
            reason="BACKBONE_LOAD_FAILED",
        ) from error
    require_weights(backbone, model, info, unused)
    return cast("torch.nn.Module", model.eval())


def unit(features: torch.Tensor) -> torch.Tensor:
    """Rows of length 1."""
    return torch.nn.functional.normalize(features, dim=-1)


def one_by_one(
    views: Callable[[Any], Sequence[torch.Tensor]], items: Sequence[Any]
) -> list[NDArray[np.float32]]:
    """Unit-norm views of items, each read alone: no padding, no mask.

    Args:
        views: From an item to its views, each of shape (d,).
        items: At least one.
    """
    with torch.no_grad():
        columns = zip(*map(views, items), strict=True)
        return [unit(torch.stack(rows)).numpy() for rows in columns]
