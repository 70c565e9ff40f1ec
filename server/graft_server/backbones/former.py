"""Encoders that a backbone had before an upgrade, or with other settings, where the cache still has their graphs.

Beside each graph lies what its encoder_id is the digest of. A graph holds weights, layers and pooling; what comes
before it, from tokenizers to the sizes of pictures, is the present backbone's. So a former encoder is used only if
both of them agree in all that is not within the graph: its features are then those that versions were trained on.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import identified

FORMAT = 1
"""The newest format of these notes that this release knows."""

_WITHIN_GRAPH = {"weights", "graph", "pooling", "precision", "reduction"}
_SAID = "max_tokens"
"""What a preprocessor is told, and so may be told otherwise."""


class _Note(msgspec.Struct, frozen=True):
    """An encoder, as it is noted beside its graph."""

    architecture: str
    layers: int
    dimension: int
    max_tokens: int
    pooling: str
    precision: str
    reference_id: str
    identity: dict[str, Any]
    format: int = 1


def note(cache: EncoderCache, backbone: Backbone) -> None:
    """Notes beside a backbone's graph what it is, unless that was done before. Raises OSError."""
    path = cache.note(backbone.encoder_id)
    if path.is_file() or not path.parent.is_dir():
        return
    said = _Note(
        backbone.architecture,
        backbone.layers,
        backbone.dimension,
        backbone.max_tokens,
        backbone.pooling,
        backbone.precision,
        backbone.reference_id,
        dict(backbone.identity),
        FORMAT,
    )
    cache.add(path, json.dumps(msgspec.to_builtins(said), sort_keys=True).encode())


def former(cache: EncoderCache, backbone: Backbone, encoder_id: str) -> Backbone | None:
    """Returns a backbone as it is with another encoder of the cache; None if that cannot be used with its files."""
    if not cache.has(encoder_id):
        return None
    try:
        said = msgspec.json.decode(cache.note(encoder_id).read_bytes(), type=_Note)
    except (OSError, msgspec.MsgspecError):
        return None
    if said.format > FORMAT or identified(said.identity) != encoder_id:
        return None
    if said.architecture != backbone.architecture or _before(said.identity) != _before(backbone.identity):
        return None
    return replace(
        backbone,
        layers=said.layers,
        dimension=said.dimension,
        max_tokens=said.max_tokens,
        pooling=said.pooling,
        precision=said.precision,
        encoder_id=encoder_id,
        reference_id=said.reference_id,
        identity=said.identity,
    )


def _before(identity: Any) -> dict[str, Any]:
    """What decides the inputs of a graph."""
    return {key: value for key, value in identity.items() if key not in _WITHIN_GRAPH and key != _SAID}
