"""Every architecture can be tuned: what is trained, kept, exported and joined gives the same features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.backbones.kinds import CLIPS, IMAGES, TEXTS, each

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.graphs.cache import HIDDEN, EncoderCache
from graft_server.backbones.graphs.contract import Making
from graft_server.backbones.graphs.cutting import boundary_of, cut, joined
from graft_server.backbones.source import open_backbone
from graft_server.backbones.torch.tuning.examples import Examples
from graft_server.backbones.tuning_contract import Recipe
from graft_server.backbones.tuning_objects import Part
from graft_server.domain.report import TuningObjective
from graft_server.encoding.encoder import Encoder
from graft_server.encoding.tuned_layers import GraphPart, SplitEncoder, TunedLayers
from graft_server.jobs.job import Place


@pytest.fixture(scope="module")
def named(text_checkpoints: Path, media_checkpoints: Path) -> Any:
    """Opens a small backbone, and exports it where that has not been done."""

    def open_named(name: str, cache: Path) -> tuple[Backbone, Path]:
        from graft_server.backbones.torch.export import export_encoder  # noqa: PLC0415 (torch where it is needed)

        folder = (text_checkpoints if name in TEXTS else media_checkpoints) / name
        backbone = open_backbone(name, str(folder))
        if not EncoderCache(cache).has(backbone.encoder_id):
            place = Place(cache=str(cache), backbones={name: str(folder)})
            wanted = Making(name, backbone.encoder_id, EncoderCache(cache).identity)
            export_encoder(wanted, place, lambda _: None)
        return backbone, EncoderCache(cache).graph(backbone.encoder_id)

    return open_named


@pytest.fixture
def tuned(named: Any, encoder_cache: Path, tmp_path: Path) -> Any:
    """Tunes so many upper layers of a backbone for some steps: the run, the graphs beside the tuned one, the items."""

    def tune(name: str, layers: int) -> tuple[Any, ...]:
        from graft_server.backbones.torch.tuning.ground import Ground  # noqa: PLC0415
        from graft_server.backbones.torch.tuning.loop import Loop  # noqa: PLC0415

        backbone, graph = named(name, encoder_cache)
        generator = np.random.default_rng(0)
        lengths = [3, 9, 30, 17, 2, 60, 5, 12] * 5
        items = [backbone.preprocessor().made_up(generator, it) for it in lengths]
        labels = np.arange(len(items), dtype=np.int32) % 2
        part = np.where(np.arange(len(items)) % 5 == 0, Part.STOP, Part.TRAIN).astype(np.int8)
        dimension = backbone.dimension
        head = generator.normal(size=(dimension, 2)).astype(np.float32), np.zeros(2, np.float32)
        Examples.write(
            tmp_path, items=items, labels=labels, weights=np.ones(len(items)), part=part, head=head
        )
        ground = Ground(
            backbone=backbone,
            recipe=Recipe(learning_rate=0.01),
            examples=Examples.read(tmp_path),
            graph=graph,
            folder=tmp_path,
        )
        parts = None
        if layers < backbone.layers:
            below = backbone.layers - layers
            whole = onnx.load(str(graph))
            found = cut(whole, boundary_of(onnx.load(str(graph)), below, name))
            parts = tmp_path / "below.onnx", tmp_path / "above.onnx"
            onnx.save(found.below, str(parts[0]))
            onnx.save(found.above, str(parts[1]))
            recipe = replace(ground.recipe, below=below)
            ground = replace(ground, recipe=recipe, below_graph=parts[0], graph=parts[1])
        run = Loop(ground, lambda _: None)
        run.keep_hidden()
        run.begin()
        optimizer = run.optimizer()
        for batch in run.epoch(0) + run.epoch(1):
            run.learn(batch, optimizer)
        features = run.finish()  # which compares the tuned graph with torch
        return run, features.astype(np.float32), backbone, graph, parts, items

    return tune


@pytest.mark.parametrize("name", each([*TEXTS, *IMAGES, *CLIPS]))
def test_the_uppermost_layer_is_tuned_and_runs_on_what_all_share(tuned, tmp_path, name):
    run, features, backbone, graph, parts, items = tuned(name, 1)
    preprocessor = backbone.preprocessor()
    encoder = Encoder(graph, device="cpu", threads=1, collate=preprocessor.collate)
    before = np.concatenate([encoder.encode([it])["pooled"] for it in items])
    assert np.abs(features - before).max() > 1e-3, "nothing was learned"
    # Served, in batches of several lengths, beside rows of the frozen backbone.
    grafted = SplitEncoder(encoder, preprocessor)
    grafted.add_cut(run.recipe.below, *(GraphPart(it, device="cpu", threads=1) for it in parts))
    top = TunedLayers(run.recipe.below, GraphPart(tmp_path / "top.onnx", device="cpu", threads=1))
    rows = np.arange(len(items))
    found = grafted.encode_with(items, {top: rows[::2], None: rows[1::2]})
    np.testing.assert_allclose(found[top]["pooled"][::2], features[::2], atol=2e-3)  # float16 below the cut
    np.testing.assert_allclose(found[None]["pooled"][1::2], before[1::2], atol=1e-5)
    # Joined, as bundles are.
    whole = joined(onnx.load(str(parts[0])), onnx.load(str(tmp_path / "top.onnx")))
    assert HIDDEN not in {it.name for it in whole.graph.input}
    segment = GraphPart(whole.SerializeToString(), device="cpu", threads=1)
    alone = segment.run(preprocessor.collate(items[:3]))["pooled"]
    np.testing.assert_allclose(alone, grafted.encode_by(top, items[:3])["pooled"], atol=1e-5)


@pytest.mark.parametrize("name", each(["bert", "gpt2", "t5", "resnet", "vit", "whisper"]))
def test_all_layers_are_tuned(tuned, tmp_path, name):
    run, features, backbone, graph, parts, items = tuned(name, 99)
    assert parts is None
    collate = backbone.preprocessor().collate
    before = Encoder(graph, device="cpu", threads=1, collate=collate).encode(items[:5])["pooled"]
    after = Encoder(tmp_path / "top.onnx", device="cpu", threads=1, collate=collate).encode(items[:5])[
        "pooled"
    ]
    assert np.abs(after - before).max() > 1e-3, "nothing was learned"
    np.testing.assert_allclose(after, features[:5], atol=1e-3)
    assert sum(it.size for it in run.model.tuned().values()) > 0.5 * sum(
        it.numel() for it in run.model.module.parameters()
    )


@pytest.mark.parametrize("name", ["bert", "resnet", "vit", "whisper"])
@pytest.mark.slow
def test_every_kind_is_tuned_by_contrast(named, encoder_cache, tmp_path, name):
    from graft_server.backbones.torch.tuning.cross_fitting import cross_fitted  # noqa: PLC0415
    from graft_server.backbones.torch.tuning.ground import Ground  # noqa: PLC0415

    backbone, graph = named(name, encoder_cache)
    generator = np.random.default_rng(0)
    count, preprocessor = 16, backbone.preprocessor()
    items = [preprocessor.made_up(generator, it) for it in [3, 9, 30, 17] * 4]
    labels = np.arange(count, dtype=np.int32) // 4 % 2
    fold_of = np.arange(count, dtype=np.int32) % 2
    head = np.zeros((backbone.dimension, 2), np.float32), np.zeros(2, np.float32)
    part = np.full(count, Part.TRAIN, np.int8)
    Examples.write(
        tmp_path, items=items, labels=labels, weights=np.ones(count), part=part, head=head, fold_of=fold_of
    )
    recipe = Recipe(epochs=1, learning_rate=0.01, objective=TuningObjective.CONTRASTIVE, to_the_end=True)
    ground = Ground(
        backbone=backbone, recipe=recipe, examples=Examples.read(tmp_path), graph=graph, folder=tmp_path
    )
    frozen = np.full((count, 2), 0.5, np.float32)
    outcome = cross_fitted(ground, lambda _: None, frozen=frozen)
    assert (outcome.tuned.ended, outcome.by_fold.shape) == ("done", (2, count, backbone.dimension))
    before = Encoder(graph, device="cpu", threads=1, collate=preprocessor.collate).encode(items[:1])["pooled"]
    assert np.abs(outcome.features[:1] - before).max() > 1e-3, "nothing was learned"
