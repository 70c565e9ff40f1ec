"""The part of a backbone that is tuned, with a head on it: from hidden states, or from inputs, to logits.

It is the very module that was exported. The layers below the cut are emptied, and what they would have handed on is
put in where the first remaining layer reads its input: so no architecture has to be known here but where its list
of layers is, and parameters have the names that they have in the exported graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.preprocessing import Preprocessor
from graft_server.backbones.torch.family import Graph, torch_family
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.hidden import Hidden
from graft_server.domain.errors import BackboneError


class Tunable(torch.nn.Module):
    """A backbone from its first tuned layer on, and a linear head on its features."""

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
            backbone: What is tuned.
            below: How many of its layers stay as they are; 0: all is tuned, what comes before the layers too.
            weight: shape (d, k): the head to start from, on unit-norm features.
            bias: shape (k,).

        Raises:
            BackboneError: It cannot be loaded, or has no list of layers.
        """
        super().__init__()
        self.below, self.layers = below, backbone.layers
        self.graph = graph = torch_family(backbone).graph(backbone)
        self.module = graph.module
        if hasattr(self.module, "layer"):
            setattr(self.module, "layer", 0)  # noqa: B010 - the view of a layer half-way up is not asked for
        self._stack, stack = _stack_of(graph, backbone)
        self._handed: list[torch.Tensor] = []
        if below:
            forms = _forms_of(graph, backbone.preprocessor(), stack[:below])
            for number, form in enumerate(forms):
                if form is not None:
                    stack[number] = _Emptied(form)
            stack[below].register_forward_pre_hook(self._put_in, with_kwargs=True)
        self.weight = torch.nn.Parameter(torch.from_numpy(weight.copy()))
        self.bias = torch.nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(
        self, inputs: Mapping[str, torch.Tensor], hidden: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit-norm features, shape (n, d), and logits, shape (n, k), of n inputs.

        Args:
            inputs: What the exported graph reads; see `preprocessing.Preprocessor.collate`.
            hidden: What the layers below the cut hand on, in the form in which the graph has it; None where there
                are none.
        """
        if hidden is not None:
            self._handed[:] = [hidden]
        features = self.module(**inputs)[0].float()
        return features, features @ self.weight + self.bias

    def train(self, mode: bool = True) -> Self:
        """As usual, but what batch normalisation takes for the mean and variance of a channel stays as it was."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001 - there is no other name
                module.eval()
        return self

    def groups(self, rate: float, decay: float, weight_decay: float) -> list[dict[str, Any]]:
        """The parameters that get gradients, by learning rate: each layer's is `decay` times that of the next."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        layer = -1
        for name, parameter in self.module.named_parameters():
            # What is registered before the layers is below them, and what follows belongs to the last one.
            if name.startswith(self._stack + "."):
                layer = int(name.removeprefix(self._stack + ".").partition(".")[0])
            elif layer >= 0:
                layer = self.layers - 1
            if parameter.grad is None:
                parameter.requires_grad = False  # below the cut, or not on the way to the features
                continue
            own = rate * decay ** (self.layers - 1 - layer)
            # Biases and norms are not drawn to 0.
            key = (own, weight_decay if parameter.ndim > 1 else 0.0)
            groups.setdefault(key, []).append(parameter)
        groups[rate, 0.0] = [*groups.get((rate, 0.0), []), self.weight, self.bias]
        return [
            {"params": parameters, "lr": own, "rate": own, "weight_decay": decay}
            for (own, decay), parameters in groups.items()
        ]

    def tuned(self) -> dict[str, NDArray[np.float32]]:
        """The weights that are tuned, by the names that they have in the exported graph; without the head."""
        return {
            name: parameter.detach().cpu().numpy().copy()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        }

    def _put_in(
        self, _module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        (hidden,) = self._handed
        if arguments:
            return (hidden, *arguments[1:]), keywords
        return arguments, {**keywords, "hidden_states": hidden}


class _Emptied(torch.nn.Module):
    """In the place of a layer whose work is done already: hands its input on, in the form in which a layer does."""

    def __init__(self, form: int) -> None:
        """`form`: 0 for a tensor; otherwise how many there are in a tuple, of which all but the first are None."""
        super().__init__()
        self._form = form

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        hidden = arguments[0] if arguments else keywords["hidden_states"]
        return (hidden, *[None] * (self._form - 1)) if self._form else hidden


def forward(
    model: Tunable,
    examples: Examples,
    hidden: Hidden | None,
    preprocessor: Preprocessor,
    rows: NDArray[np.int64],
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model makes of some examples, on its device: see `Tunable.forward`."""
    device = model.weight.device
    inputs = preprocessor.collate(examples.items(rows))
    below = None if hidden is None else torch.from_numpy(hidden.of(rows, inputs)).to(device)
    tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
    found: tuple[torch.Tensor, torch.Tensor] = model(tensors, below)
    return found


def _stack_of(graph: Graph, backbone: Backbone) -> tuple[str, torch.nn.ModuleList]:
    for path, module in graph.module.named_modules():
        if isinstance(module, torch.nn.ModuleList) and list(module) == list(graph.layers):
            return path, module
    raise BackboneError(
        f"Backbone {backbone.name}: its {backbone.layers} layers could not be found, so it cannot be tuned: use the "
        "method frozen.",
        reason="BACKBONE_NOT_TUNABLE",
    )


def _forms_of(graph: Graph, preprocessor: Preprocessor, layers: torch.nn.ModuleList) -> list[int | None]:
    """In which form each layer hands on its result: see `_Emptied`; None if it says more than that.

    T5's layers hand on where words stand to each other too. Such layers stay: they work in vain, but rightly.
    """
    forms: dict[torch.nn.Module, int | None] = {}

    def note(module: torch.nn.Module, _arguments: Any, output: Any) -> None:
        if isinstance(output, tuple):
            forms[module] = len(output) if all(it is None for it in output[1:]) else None
        else:
            forms[module] = 0

    hooks = [layer.register_forward_hook(note) for layer in layers]
    inputs = preprocessor.collate(graph.items)
    with torch.no_grad():
        graph.module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
    for hook in hooks:
        hook.remove()
    return [forms.get(layer) for layer in layers]
