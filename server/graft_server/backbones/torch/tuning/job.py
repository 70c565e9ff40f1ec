"""The job that tunes: brings the examples and the graphs to where it runs, and what was made back to the store."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from pathlib import Path

import numpy as np

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.cross_fitted import NAME
from graft_server.backbones.decoding.limits import Bounded
from graft_server.backbones.graphs.cache import EncoderCache
from graft_server.backbones.source import backbone_at
from graft_server.backbones.torch.tuning import contrastive
from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.torch.tuning.ground import Ground, Outcome
from graft_server.backbones.torch.tuning.loop import tuned
from graft_server.backbones.tuning_contract import EXAMPLES_GONE, TUNE, Recipe, Tuned, Tuning
from graft_server.backbones.tuning_objects import Part, TunedParts, TuningSet
from graft_server.backbones.tunings import Tunings
from graft_server.domain.errors import FaultError
from graft_server.domain.examples import Input, Modality
from graft_server.domain.report import TuningObjective
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
    folder = tunings.local(payload.folder, _name(payload.recipe))
    chosen = TuningSet.read(objects, payload.prepared)
    cache, below = EncoderCache(Path(place.cache), objects), payload.recipe.below
    graph = cache.above(backbone.encoder_id, below) if below else cache.graph(backbone.encoder_id)
    ground = Ground(
        backbone=backbone,
        recipe=payload.recipe,
        examples=_examples(objects, payload, chosen, backbone),
        graph=cache.require(graph),
        below_graph=cache.require(cache.below(backbone.encoder_id, below)) if below else None,
        folder=folder,
        threads=place.threads,
        cache_bytes=place.tuning_bytes,
    )
    if payload.recipe.objective is TuningObjective.CONTRASTIVE:
        outcome = _cross_fitted(ground, chosen, progress)
    else:
        outcome = tuned(ground, progress)
    made = ""
    if outcome.head is not None and (outcome.top is not None or outcome.measured):
        top = b"" if outcome.top is None else outcome.top.read_bytes()
        low = outcome.compressed
        adapter = b"" if low is None else low.adapter.encoded()
        parts = TunedParts(outcome.features, outcome.head, len(top), outcome.by_fold)
        if low is not None and len(adapter) < len(top):
            parts = dataclasses.replace(
                parts,
                rank=low.adapter.rank,
                compressed=low.features[: len(chosen.ids)],
                compressed_by_fold=outcome.compressed_by_fold,
            )
        made = parts.write(objects, payload.folder, top, adapter if parts.rank else b"")
    shutil.rmtree(folder, ignore_errors=True)
    return dataclasses.replace(outcome.tuned, made=made)


def _name(recipe: Recipe) -> str:
    """Tells tunings of one commit apart."""
    below = f"below-{recipe.below}"
    return below if recipe.objective is TuningObjective.CROSS_ENTROPY else f"{recipe.objective}-{below}"


def _cross_fitted(ground: Ground, chosen: TuningSet, progress: OnProgress) -> Outcome:
    frozen = chosen.out_of_fold
    if frozen is None:
        raise ValueError("a contrastive tuning is given what the frozen head says of each example")
    return cross_fitted(ground, progress, frozen=frozen)


def _examples(objects: Objects, payload: Tuning, chosen: TuningSet, backbone: Backbone) -> Examples:
    """The examples, prepared on disk, where the worker's temporary files are: gone with this process.

    Names of classes come after them, where those are examples of the classes.
    """
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
    names = _names(chosen, backbone) if payload.recipe.objective is TuningObjective.CONTRASTIVE else ()
    known = np.arange(len(names), dtype=np.int32)
    # One after the other: pixels and samples are far larger than the files that they come from.
    items = (
        preprocessor.shortest() if skipped else preprocessor.prepare(inputs[it]).item
        for it, skipped in zip(chosen.ids, unused, strict=True)
    )
    named = (preprocessor.prepare(Input(it)).item for it in names)
    folds = chosen.fold_of if payload.recipe.objective is TuningObjective.CONTRASTIVE else None
    with tempfile.TemporaryDirectory(prefix="prepared-") as prepared:
        Examples.write(
            Path(prepared),
            items=itertools.chain(items, named),
            labels=np.concatenate([chosen.labels, known]),
            weights=np.concatenate([chosen.weights, np.ones(len(names))]),
            part=np.concatenate([chosen.part, np.full(len(names), Part.LEFT_OUT, np.int8)]),
            head=chosen.head,
            fold_of=None if folds is None else np.concatenate([folds, np.full(len(names), NAME, np.int32)]),
        )
        return Examples.read(Path(prepared))


def _names(chosen: TuningSet, backbone: Backbone) -> tuple[str, ...]:
    """What stands for the names of the classes, where they are members of them."""
    if not contrastive.NAMES or backbone.modality is not Modality.TEXT:
        return ()
    return tuple(contrastive.named(it) for it in chosen.names)
