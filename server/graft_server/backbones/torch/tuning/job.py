"""The job that tunes: brings the examples and the graphs to where it runs, and what was made back to the store."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.decoding.limits import Bounded
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import backbone_at
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground
from graft_server.backbones.torch.tuning.loop import tuned
from graft_server.backbones.tuning_contract import EXAMPLES_GONE, TUNE, Tuned, Tuning
from graft_server.backbones.tuning_objects import Part, TunedParts, TuningSet
from graft_server.backbones.tunings import Tunings
from graft_server.domain.errors import FaultError
from graft_server.jobs.job import OnProgress, Place, Progress
from graft_server.store.adaptations.training_rows import read_inputs
from graft_server.store.objects.objects import Objects


@TUNE.done_by
def tune(payload: Tuning, place: Place, progress: OnProgress) -> Tuned:
    """Tunes the upper layers of a backbone, and puts what is better than the start into the store.

    Killed, it goes on from its last checkpoint, which lies in the cache where it runs.

    Raises:
        BackboneError: The backbone cannot be tuned, or is another one here.
        FaultError: The tuned graph computes something else than torch (TUNED_PARITY), examples were erased since
            they were chosen (EXAMPLES_GONE), or the store failed.
    """
    progress(Progress("loading"))
    backbone = backbone_at(place, payload.backbone, payload.encoder_id)
    objects = Objects.open(place.store)
    tunings = Tunings(objects, place)
    tunings.sweep_cache()
    folder = tunings.local(payload.folder, f"below-{payload.recipe.below}")
    cache, below = EncoderCache(Path(place.cache), objects), payload.recipe.below
    graph = cache.above(backbone.encoder_id, below) if below else cache.graph(backbone.encoder_id)
    ground = Ground(
        backbone=backbone,
        recipe=payload.recipe,
        examples=_examples(objects, payload, backbone),
        graph=cache.require(graph),
        below_graph=cache.require(cache.below(backbone.encoder_id, below)) if below else None,
        folder=folder,
        threads=place.threads,
        cache_bytes=place.tuning_bytes,
    )
    outcome = tuned(ground, progress)
    made = ""
    if outcome.top is not None and outcome.head is not None:
        parts = TunedParts(outcome.features, outcome.head, outcome.top.stat().st_size)
        made = parts.write(objects, payload.folder, outcome.top.read_bytes())
    shutil.rmtree(folder, ignore_errors=True)
    return dataclasses.replace(outcome.tuned, made=made)


def _examples(objects: Objects, payload: Tuning, backbone: Backbone) -> Examples:
    """The examples, prepared on disk, where the worker's temporary files are: gone with this process."""
    chosen = TuningSet.read(objects, payload.prepared)
    inputs = read_inputs(objects, payload.model, payload.sources)
    if not inputs.keys() >= set(chosen.ids):
        raise FaultError(
            "Some examples were erased while the backbone was about to be tuned on them. Commit again.",
            reason=EXAMPLES_GONE,
        )
    # What nothing is learned from or measured on may be what the backbone cannot read: anything stands for it.
    unused = (chosen.part == Part.LEFT_OUT) & ~chosen.validation
    preprocessor = backbone.preprocessor()
    if isinstance(preprocessor, Bounded):
        preprocessor = preprocessor.within(payload.limits)
    with tempfile.TemporaryDirectory(prefix="prepared-") as prepared:
        Examples.write(
            Path(prepared),
            # One after the other: pixels and samples are far larger than the files that they come from.
            items=(
                preprocessor.shortest() if skipped else preprocessor.prepare(inputs[it]).item
                for it, skipped in zip(chosen.ids, unused, strict=True)
            ),
            labels=chosen.labels,
            weights=chosen.weights,
            part=chosen.part,
            head=chosen.head,
        )
        return Examples.read(Path(prepared))
