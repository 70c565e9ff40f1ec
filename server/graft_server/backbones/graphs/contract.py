"""What the jobs that make graphs are asked for, and what they answer: shared by the server and its workers."""

from __future__ import annotations

from dataclasses import dataclass

from graft_server.jobs.job import JobType


@dataclass(frozen=True, slots=True)
class Making:
    """Of what backbone a graph is wanted."""

    backbone: str
    """Its name."""
    encoder_id: str
    """What it is there where the graph is wanted: another one is refused."""
    cache: str
    """The identity of the cache that the graph is wanted in; see `cache.EncoderCache`."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The encoder in float32 is in the cache."""

    parity: float
    """The largest difference to torch that was seen, relative to the row's largest component."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """The encoder in another precision is in the cache."""

    least_cosine: float
    """The smallest cosine to the features in float32, over texts of odd lengths and all views."""
    mean_cosine: float


@dataclass(frozen=True, slots=True)
class Cutting(Making):
    """Where the graph is to be cut."""

    layer: int
    """How many layers are below the cut."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Both parts are in the cache."""


EXPORT = JobType(
    "graft_server.backbones.torch.export:export_encoder", Making, Exported, fresh=True, passed_on=True
)
"""Exports a backbone in float32."""
REDUCE = JobType(
    "graft_server.backbones.graphs.reducing:reduce_encoder", Making, Reduced, fresh=True, passed_on=True
)
"""Makes the encoder in the backbone's precision of the exported one."""
CUT = JobType("graft_server.backbones.graphs.cutting:cut_encoder", Cutting, Cut)
"""Cuts the encoder in two."""
ADAPT = JobType("graft_server.backbones.graphs.adapted:adapt_encoder", Cutting, Cut)
"""Gives the part of the encoder above a cut room for adapters; of layer 0: all of it."""
