"""The part of a text backbone that is tuned, with the head on it: from hidden states, or from tokens, to logits.

The layers below the cut are taken out of the model, and what they would have handed on is put in where the first
remaining layer reads its input. That needs no knowledge of the architecture but where its list of layers is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.packing import pack
from graft_server.backbones.scratch import Scratch
from graft_server.backbones.source import Backbone
from graft_server.backbones.torch.family import load, unit
from graft_server.backbones.torch.hidden import Hidden
from graft_server.backbones.torch.packed_text import PACKED, first_position, mean_of_texts, read_of
from graft_server.errors import BackboneError


class Tunable(torch.nn.Module):
    """A text backbone from its first tuned layer on, over packed tokens, and a linear head on its features."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        below: int,
        weight: NDArray[np.float32],
        bias: NDArray[np.float32],
    ) -> None:
        """Loads the backbone.

        Args:
            backbone: A text backbone whose graph reads packed tokens.
            below: How many of its layers stay as they are, and are left out here; 0: all is tuned, embeddings too.
            weight: shape (d, k): the head to start from, on unit-norm features.
            bias: shape (k,).

        Raises:
            BackboneError: It cannot be loaded, or has no list of layers.
        """
        super().__init__()
        self.pooling, self.below, self.layers = backbone.pooling, below, backbone.layers
        self.model = load(backbone, attn_implementation=PACKED)
        self._stack, stack = _stack_of(self.model, backbone.layers, backbone.name)
        self._hidden: torch.Tensor | None = None
        if below:
            kept = torch.nn.ModuleList(list(stack)[below:])
            parent, _, attribute = self._stack.rpartition(".")
            setattr(self.model.get_submodule(parent), attribute, kept)
            kept[0].register_forward_pre_hook(self._put_in, with_kwargs=True)
        self.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(
        self, inputs: Mapping[str, torch.Tensor], hidden: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit-norm features, shape (n, d), and logits, shape (n, k), of n packed texts.

        Args:
            inputs: See `backbones.packing.pack`.
            hidden: shape (tokens, d): what the layers below the cut hand on; None where there are none.
        """
        self._hidden = None if hidden is None else hidden[None]
        last = self.model(
            **read_of(self.model, inputs["input_ids"][None]),
            position_ids=inputs["position_ids"][None] + first_position(self.model),
            rows=inputs["rows"],
            cells=inputs["cells"],
        ).last_hidden_state[0]
        rows = inputs["rows"]
        pooled = last.index_select(0, rows[:, 0]) if self.pooling == "cls" else mean_of_texts(last, rows)
        features = unit(pooled)
        return features, features @ self.weight + self.bias

    def groups(self, rate: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
        """The parameters that get gradients, by learning rate: each layer's is `decay` times that of the next."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.grad is None:
                parameter.requires_grad = False  # below the cut, or not on the way to the features
                continue
            own = rate * decay ** (self.layers - 1 - self._layer(name))
            # Biases and norms are not drawn to 0.
            key = (own, weight_decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
        groups[rate, 0.0] = [*groups.get((rate, 0.0), []), self.weight, self.bias]
        return [
            {"params": parameters, "lr": own, "rate": own, "weight_decay": decay}
            for (own, decay), parameters in groups.items()
        ]

    def tuned(self) -> dict[str, NDArray[np.float32]]:
        """The weights that are tuned, by the names that they have in the whole model; without the head."""
        return {
            self._whole_name(name): parameter.detach().cpu().numpy().copy()
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }

    def _layer(self, name: str) -> int:
        """Which layer a parameter is in: -1 for embeddings; what follows the layers counts as the last one."""
        if name.startswith(self._stack + "."):
            return int(name.removeprefix(self._stack + ".").partition(".")[0]) + self.below
        return -1 if "embed" in name else self.layers - 1

    def _whole_name(self, name: str) -> str:
        if not name.startswith(self._stack + "."):
            return name
        number, _, rest = name.removeprefix(self._stack + ".").partition(".")
        return f"{self._stack}.{int(number) + self.below}.{rest}"

    def _put_in(
        self, _module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if arguments:
            return (self._hidden, *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": self._hidden}


def forward(
    model: Tunable, examples: Scratch, hidden: Hidden | None, rows: NDArray[np.int64]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model makes of some examples, on its device: see `Tunable.forward`."""
    device = model.weight.device
    inputs = pack([examples.tokens_of(row) for row in rows])
    below = None if hidden is None else torch.from_numpy(hidden.of(rows, inputs)).to(device)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    found: tuple[torch.Tensor, torch.Tensor] = model(tensors, below)
    return found


def _stack_of(model: torch.nn.Module, layers: int, name: str) -> tuple[str, torch.nn.ModuleList]:
    found: Sequence[tuple[str, torch.nn.ModuleList]] = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == layers
    ]
    if not found:
        raise BackboneError(
            f"Backbone {name}: its {layers} layers could not be found, so it cannot be tuned: use the method frozen.",
            reason="BACKBONE_NOT_TUNABLE",
        )
    return found[0]
