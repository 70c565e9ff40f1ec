"""The weights of a checkpoint: all that the architecture needs, as they were trained, or a refusal.

transformers makes up what a checkpoint's files lack, with a warning in a log. Features that are computed from such
weights are noise, and no comparison with torch shows it: torch has the same ones.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.checkpoint import Checkpoint
from graft_server.domain.errors import BackboneError

WRAPPERS: Mapping[str, str] = {
    r"_orig_mod\.": "",
    r"_fsdp_wrapped_module\.": "",
    r"_checkpoint_wrapped_module\.": "",
    r"^module\.": "",
}
"""What torch.compile, FSDP and DataParallel put into the names of weights, as regular expressions: read as if it were
not there."""

_WRAPPED = re.compile(r"^(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_ADAPTER = re.compile(r"(?:^|\.)(?:lora_|hada_|lokr_|ia3_|oft_|vera_)|\.base_layer\.")
_REMEDY = "Save the model itself with save_pretrained(), and give that folder with its own config.json."
_MERGE = (
    "Merge the adapter into the model (PEFT's merge_and_unload()), save the result with save_pretrained(), and give "
    "that folder."
)
_NAMED = 3
_FLOATS = {"F64", "F32", "F16", "BF16"}


def require_weights(
    backbone: Backbone, model: torch.nn.Module, info: Mapping[str, Any], unused: Sequence[str]
) -> None:
    """Refuses a model some of whose weights are not the checkpoint's.

    Args:
        backbone: Where they come from.
        model: The model as transformers loaded it.
        info: transformers' loading info: `missing_keys`, `unexpected_keys`, `mismatched_keys`.
        unused: The beginnings of the names of weights that no feature depends on: these may be anything.

    Raises:
        BackboneError: BACKBONE_WEIGHTS_OTHER, if weights are missing, have another shape, are not finite, are
            quantized, or are an adapter's; the message names the first ones and the likely cause.
    """
    names = [name for name in model.state_dict() if not name.startswith(tuple(unused))]
    expected = set(names)
    unexpected = sorted(info["unexpected_keys"])
    _refuse_adapter(backbone, unexpected)
    _refuse_missing(backbone, names, expected & set(info["missing_keys"]), unexpected)
    _refuse_shapes(backbone, [it for it in sorted(info["mismatched_keys"]) if it[0] in expected])
    _refuse_unread(backbone, model, unexpected)
    _refuse_quantized(backbone)
    _refuse_not_finite(backbone, model, expected)


def _refuse_adapter(backbone: Backbone, unexpected: Collection[str]) -> None:
    adapter = [it for it in unexpected if _ADAPTER.search(it)]
    if adapter:
        raise _other(
            backbone,
            f"its files hold an adapter beside the weights ({_some(adapter)}), which would be left out. {_MERGE}",
        )


def _refuse_missing(
    backbone: Backbone, names: Sequence[str], missing: Collection[str], unexpected: Sequence[str]
) -> None:
    # A counter of batches; it matters in training only.
    lacking = [it for it in names if it in missing and not it.endswith("num_batches_tracked")]
    if not lacking:
        return
    raise _other(
        backbone,
        f"{len(lacking):,} of the {len(names):,} weights that the architecture {backbone.architecture} needs are not "
        f"in its files ({_some(lacking)}), and would be made up at random. {_cause(lacking, unexpected)}{_REMEDY}",
    )


def _cause(lacking: Sequence[str], unexpected: Sequence[str]) -> str:
    """What the names that nobody reads say of why others are missing; empty, or a sentence and a space."""
    if not unexpected:
        return ""
    wanted = set(lacking)
    for name in unexpected:
        for target in wanted:
            if name.endswith("." + target):
                return f"In the files their names begin with {name.removesuffix(target)!r}. "
    return (
        f"The files have names that nothing reads instead ({_some(unexpected)}): they are of another model. "
    )


def _refuse_shapes(
    backbone: Backbone, mismatched: Sequence[tuple[str, Iterable[int], Iterable[int]]]
) -> None:
    if not mismatched:
        return
    name, found, wanted = mismatched[0]
    raise _other(
        backbone,
        f"{len(mismatched):,} of its weights have another shape than its config.json says: {name} has "
        f"{_shape(found)} in the files, and should have {_shape(wanted)}. {_REMEDY}",
    )


def _refuse_unread(backbone: Backbone, model: torch.nn.Module, unexpected: Sequence[str]) -> None:
    """Refuses weights of layers that the model has, which its architecture would leave out."""
    layers = {name for name, _ in model.named_modules() if name.rpartition(".")[2].isdigit()}
    prefix = getattr(model, "base_model_prefix", "") + "."
    unread = [
        name
        for name in unexpected
        if name.endswith((".weight", ".bias")) and layers & set(_parents(name.removeprefix(prefix)))
    ]
    if unread:
        raise _other(
            backbone,
            f"{len(unread):,} weights in its layers are none that the architecture {backbone.architecture} reads "
            f"({_some(unread)}): they are of another architecture. {_REMEDY}",
        )


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def refuse_quantization(backbone: Backbone) -> None:
    """Raises BackboneError (BACKBONE_WEIGHTS_OTHER) if the configuration says that weights are quantized."""
    config = Checkpoint.open(backbone.name, backbone.folder).config.get("quantization_config")
    if config:
        method = config.get("quant_method", "a method without a name") if isinstance(config, dict) else config
        raise _other(
            backbone,
            f"its config.json says that its weights are quantized ({method}): give the checkpoint in float32, float16 "
            "or bfloat16, or remove quantization_config if its weights are of these. --precision int8 quantizes them "
            "here.",
        )


def _refuse_quantized(backbone: Backbone) -> None:
    for path in Checkpoint(backbone.name, backbone.folder).weights():
        for name, tensor in _header(path).items():
            if name.endswith(".weight") and tensor.get("dtype") not in _FLOATS:
                raise _other(
                    backbone,
                    f"its weights are quantized ({name} is {tensor.get('dtype')}): give the checkpoint in float32, "
                    "float16 or bfloat16. --precision int8 quantizes it here.",
                )


def _header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: name to dtype and shape."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: it for name, it in header.items() if name != "__metadata__"}


def _refuse_not_finite(backbone: Backbone, model: torch.nn.Module, names: Collection[str]) -> None:
    bad = [
        name
        for name, weights in model.state_dict().items()
        if name in names and weights.is_floating_point() and not bool(torch.isfinite(weights).all())
    ]
    if bad:
        raise _other(
            backbone,
            f"{len(bad):,} of its weights are not finite numbers (NaN or infinite): {_some(bad)}. A training that "
            "diverged leaves such ones, and so does float16 that overflowed: give an earlier checkpoint.",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _shape(sizes: Iterable[int]) -> str:
    return " × ".join(str(it) for it in sizes) or "one number"


def _other(backbone: Backbone, what: str) -> BackboneError:
    return BackboneError(f"Backbone {backbone.name}: {what}", reason="BACKBONE_WEIGHTS_OTHER")
