"""Which examples a contrastive tuning is given, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from graft_server.backbones.tuning_contract import Tuned
from graft_server.backbones.tuning_objects import Part, TunedParts, TuningSet
from graft_server.domain.examples import Label
from graft_server.domain.method import Method
from graft_server.domain.model import Manifest
from graft_server.domain.report import TuningObjective
from graft_server.heads import ABSTAIN_ABOVE, decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.jobs.job import Place
from graft_server.store.catalogue.versions import (
    HEAD,
    HEAD_ONNX,
    REPORT,
    TOP,
    read_manifest,
    read_part,
    write_version,
)
from graft_server.store.objects.objects import Objects
from graft_server.training.contract import Finished, Finishing, Made
from graft_server.training.finish_tuning import finish
from graft_server.training.tasks.single_label.few import FOLDS
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.single_label.tuning import prepare

CONTRASTIVE, CROSS_ENTROPY = TuningObjective.CONTRASTIVE, TuningObjective.CROSS_ENTROPY
FOLDER = "tunings/m/1/c/"
DONE = Tuned(ended="done", best=1, parameters=10, folds=FOLDS, learning_rate=3e-4)


def prepared(make_set: Any, *arguments: Any, **changes: Any) -> TuningSet | None:
    return prepare(select_single_label(make_set(*arguments, **{"noise": 2.0, **changes}), seed=0), seed=0)


@pytest.mark.parametrize(
    ("counts", "objectives"),
    [
        ((8, 8), [CONTRASTIVE]),
        ((7, 8, 8), [CONTRASTIVE]),
        ((6, 6, 6), []),
        ((60, 1, 1, 1, 1), [CONTRASTIVE]),
        ((49, 49), [CONTRASTIVE]),
        ((60, 60), [CONTRASTIVE, CROSS_ENTROPY]),
        ((4,) * 30, [CROSS_ENTROPY]),
        ((150, 150), [CROSS_ENTROPY]),
        ((21,) * 100, [CROSS_ENTROPY]),
    ],
)
def test_what_a_tuning_learns_by_follows_from_the_examples(make_set, counts, objectives):
    chosen = prepared(make_set, counts)
    assert list(chosen.objectives if chosen else ()) == objectives


def test_each_example_is_held_out_once_with_its_group_and_its_copies(make_set):
    groups = np.repeat(np.arange(16), 3).astype(np.int64)
    digests = tuple(b"same" if it in (0, 47) else str(it).encode() for it in range(48))
    chosen = prepared(make_set, (24, 24), groups=groups, input_digests=digests)
    assert set(chosen.fold_of.tolist()) == set(range(FOLDS))
    for group in range(16):
        assert len(set(chosen.fold_of[groups == group])) == 1
    assert chosen.fold_of[0] == chosen.fold_of[47]


def test_examples_for_validation_are_in_no_fold_and_what_the_frozen_head_says_of_the_others_is_known(
    make_set,
):
    validation = np.arange(48) % 6 == 0
    train = make_set((24, 24), noise=2.0, validation=validation)
    selection = select_single_label(train, seed=0)
    chosen = prepare(selection, seed=0)
    np.testing.assert_array_equal(chosen.fold_of < 0, validation)
    np.testing.assert_array_equal(chosen.out_of_fold[~validation], selection.out_of_fold)
    np.testing.assert_array_equal(chosen.part == Part.LEFT_OUT, validation)


def test_examples_that_are_all_alike_are_not_tuned_on(make_set):
    train = make_set((10, 10), noise=0.0)
    same = {"pooled": np.repeat(train.features["pooled"][:1], 20, axis=0)}
    alike = replace(train, features=same)
    assert prepare(select_single_label(alike, seed=0), seed=0) is None


def test_what_is_given_reads_back_and_what_an_older_release_wrote_has_no_folds(tmp_path, make_set):
    objects = Objects.open(str(tmp_path / "store"))
    chosen = prepared(make_set, (12, 12))
    found = TuningSet.read(objects, chosen.write(objects, FOLDER))
    np.testing.assert_array_equal(found.fold_of, chosen.fold_of)
    np.testing.assert_array_equal(found.out_of_fold, chosen.out_of_fold)
    assert (found.names, found.soft) == (("class 0", "class 1"), None)
    older = replace(chosen, fold_of=None, out_of_fold=None, names=())
    again = TuningSet.read(objects, older.write(objects, FOLDER))
    assert (again.fold_of, again.out_of_fold, again.names, again.objectives) == (None, None, (), ())


def test_a_description_is_read_with_the_name_of_its_class(make_set):
    assert prepared(make_set, (12, 12), descriptions=("of a kind", "")).names == (
        "class 0: of a kind",
        "class 1",
    )


@dataclass
class Tried:
    """A frozen version on few examples, and what its commit prepared for a tuning."""

    place: Place
    objects: Objects
    chosen: TuningSet
    key: str
    """Of the latter."""
    frozen: Made
    features: np.ndarray
    """What the frozen backbone makes of the examples."""

    def moved(self, share: float, seen: np.ndarray) -> np.ndarray:
        """Features that are those of an ideal backbone to a share, and entirely of what was tuned on."""
        ideal = np.eye(32, dtype=np.float32)[self.chosen.labels]
        parts = np.where(seen, 0.9, share)[:, None]
        rows = (1 - parts) * self.features + parts * ideal
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    def tuning(self, share: float, *, folds: int = FOLDS, tuned: Tuned = DONE, **settings: Any) -> Finished:
        """Finishes a tuning that brings unseen examples to where they belong to a share."""
        fold_of = self.chosen.fold_of
        by_fold = np.stack([self.moved(share, fold_of != it) for it in range(folds)])
        whole = tuned.ended == "done"
        features = self.moved(share, fold_of >= 0) if whole else by_fold[0, :0]
        top = b"top" if whole else b""
        parts = TunedParts(features, self.chosen.head, len(top), by_fold)
        payload = Finishing(
            best=self.frozen.manifest,
            prepared=self.key,
            folder=FOLDER,
            method=Method.FULL,
            layers=6,
            below=0,
            auto=True,
            seconds=2.0,
            objective=CONTRASTIVE,
            tuned=replace(tuned, made=parts.write(self.objects, FOLDER, top), folds=folds),
        )
        return finish(replace(payload, **settings), self.place, lambda _: None)


def tried_on(folder: Any, train: Any) -> Tried:
    selection = select_single_label(train, seed=0)
    place = Place(store=str(folder / "store"))
    objects = Objects.open(place.store)
    chosen = prepare(selection, seed=0)
    parts = {
        HEAD: encode(selection.head),
        HEAD_ONNX: to_onnx(selection.head),
        REPORT: msgspec.json.encode(selection.report),
    }
    manifest = Manifest(
        "m", "a", "c", "minilm", "0" * 32, tuple(map(Label, train.classes)), (), 0, datetime.now(UTC)
    )
    ref = write_version(objects, manifest, parts)
    features = train.features["pooled"].astype(np.float32)
    made = Made(manifest=ref, report=selection.report)
    return Tried(place, objects, chosen, chosen.write(objects, FOLDER), made, features)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, make_set: Any) -> Tried:
    """Four classes of twelve examples that the frozen features confuse."""
    return tried_on(tmp_path_factory.mktemp("tried"), make_set((12, 12, 12, 12), noise=4.0))


def test_what_is_better_out_of_fold_is_a_version_with_the_figures_of_unseen_examples(tried):
    result = tried.tuning(0.8)
    manifest, tuning = read_manifest(tried.objects, result.manifest), result.report.tuning
    assert (result.kept, result.report.method, manifest.below, tuning.objective) == (
        True,
        "full",
        0,
        CONTRASTIVE,
    )
    assert read_part(tried.objects, result.manifest, manifest, TOP) == b"top"
    evaluation = result.report.evaluation
    assert (evaluation.method, evaluation.folds, evaluation.examples) == ("cross_validation", FOLDS, 48)
    assert (tuning.measured, tuning.folds, tuning.learning_rate) == (48, FOLDS, 3e-4)
    assert tuning.tuned_accuracy > tuning.frozen_accuracy
    assert 0 < tuning.accuracy_gain_error < 0.2
    assert result.report.accuracy == pytest.approx(tuning.tuned_accuracy, abs=0.02)


def test_what_only_knows_the_examples_that_it_has_seen_is_dropped(tried):
    result = tried.tuning(0.0)
    before = read_manifest(tried.objects, tried.frozen.manifest)
    manifest, tuning = read_manifest(tried.objects, result.manifest), result.report.tuning
    assert (result.kept, tuning.kept, result.report.method, tuning.measured) == (False, False, "frozen", 48)
    assert TOP not in manifest.parts
    assert manifest.parts[HEAD] == before.parts[HEAD]


def test_one_that_was_given_up_after_a_fold_says_what_that_fold_showed(tried):
    result = tried.tuning(0.0, folds=1, tuned=replace(DONE, ended="no_gain", best=0))
    tuning = result.report.tuning
    assert (result.kept, tuning.ended, tuning.folds, tuning.measured) == (False, "no_gain", 1, 12)
    assert tuning.tuned_log_loss > 0
    assert not any("improved nothing" in it for it in result.report.warnings)


def test_a_method_that_was_asked_for_is_kept_if_it_is_better_at_all_and_otherwise_not(tried):
    worse = tried.tuning(0.0, auto=False)
    gained = worse.report.tuning.frozen_log_loss - worse.report.tuning.tuned_log_loss
    assert worse.kept == (gained > 0)
    assert any("improved nothing" in it for it in worse.report.warnings) != worse.kept
    assert tried.tuning(0.8, auto=False).kept


def test_folds_that_no_time_was_left_for_are_not_measured(tried):
    result = tried.tuning(0.8, folds=3)
    assert (result.report.tuning.folds, result.report.tuning.measured) == (3, 36)
    assert result.report.evaluation.examples == 36


def test_its_head_knows_what_is_unlike_the_examples_it_has_seen_and_not_those_it_has_not(tried):
    result = tried.tuning(0.6)
    manifest = read_manifest(tried.objects, result.manifest)
    head = decode(read_part(tried.objects, result.manifest, manifest, HEAD))
    unseen = tried.moved(0.6, np.zeros(48, bool)).astype(np.float32)
    assert (head.scores(unseen).novelty > ABSTAIN_ABOVE).mean() < 0.2
    directions = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    strange = head.scores(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    assert (strange.novelty > ABSTAIN_ABOVE).mean() > 0.9


def test_of_unlabelled_examples_a_tuned_version_says_that_it_learned_from_none(tmp_path, make_set):
    pool = {"pooled": make_set((30, 30, 30, 30), noise=1.0, seed=3).features["pooled"]}
    tried = tried_on(tmp_path, make_set((12, 12, 12, 12), noise=1.0, unlabelled=pool))
    before = tried.frozen.report.unlabelled
    assert (before.used, before.log_loss_before > 0) == (120, True)
    found = tried.tuning(0.8, auto=False).report.unlabelled
    assert (found.examples, found.used, found.kept, found.log_loss_before) == (120, 0, False, 0.0)


def test_where_labels_are_chance_nothing_is_kept(tmp_path, make_set):
    train = make_set((12, 12, 12, 12), noise=4.0)
    shuffled = replace(train, labels=np.random.default_rng(1).permutation(train.labels))
    assert not tried_on(tmp_path, shuffled).tuning(0.0).kept


def test_a_class_of_one_example_is_tuned_along_and_not_measured(tmp_path, make_set):
    tried = tried_on(tmp_path, make_set((20, 20, 1), noise=4.0))
    result = tried.tuning(0.8)
    assert result.report.tuning.measured == 40
    assert result.report.classes == 3
