"""What becomes of a tuning: which version is kept, and what the report says of those that were tried."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest

from graft_server.backbones.tuning_contract import Tuned
from graft_server.backbones.tuning_objects import Part, TunedParts, TuningSet, read_probabilities
from graft_server.domain.examples import Label
from graft_server.domain.method import Method
from graft_server.domain.model import Manifest
from graft_server.domain.report import Report
from graft_server.heads import ABSTAIN_ABOVE, decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.jobs.job import Place
from graft_server.store.catalogue.versions import (
    ADAPTER,
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
from graft_server.training.examples.folded import examples_of
from graft_server.training.finish_tuning import finish
from graft_server.training.reporting.advice import advised
from graft_server.training.search.evidence import mean_and_variance
from graft_server.training.tasks.single_label.noise import STANDARD_ERRORS, is_beyond_noise
from graft_server.training.tasks.single_label.selection import select_single_label
from graft_server.training.tasks.single_label.tuning import prepare

DONE = Tuned(ended="done", best=1, parameters=10, examples_per_s=5.0)
FOLDER = "tunings/m/1/c/"


@dataclass
class Tried:
    """A frozen version, and what its commit prepared for a tuning."""

    place: Place
    objects: Objects
    chosen: TuningSet
    key: str
    """Of the latter."""
    frozen: Made
    """What the job that found the frozen head returned."""
    features: np.ndarray
    """What the frozen backbone makes of the examples."""
    ideal: np.ndarray
    """What a perfect one would."""

    def tuned_features(self, share: float) -> np.ndarray:
        """Features that are the ideal ones to a share."""
        rows = (1 - share) * self.features + share * self.ideal
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)

    def tuning(
        self, name: str, share: float, best: Made, tuned: Tuned = DONE, low: float = -1.0, **settings: Any
    ) -> Finished:
        """Finishes a tuning whose features are the ideal ones to a share, and those of an adapter to another one."""
        if tuned.best:
            parts = TunedParts(self.tuned_features(share), self.chosen.head, len(name))
            if low >= 0:
                parts = replace(parts, rank=8, compressed=self.tuned_features(low))
            adapter = b"low" if low >= 0 else b""
            tuned = replace(tuned, made=parts.write(self.objects, FOLDER, name.encode(), adapter))
        payload = Finishing(
            best=best.manifest,
            best_measured=best.measured if isinstance(best, Finished) else "",
            prepared=self.key,
            folder=FOLDER,
            method=Method(name),
            layers=6,
            below=4 if name == "partial" else 0,
            auto=True,
            seconds=2.0,
            tuned=tuned,
        )
        return finish(replace(payload, **settings), self.place, lambda _: None)


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory, make_set) -> Tried:
    """Three classes of 200 examples that the frozen features confuse."""
    train = make_set((200, 200, 200), noise=3.0, validation=np.zeros(600, bool))
    selection = select_single_label(train, seed=0)
    place = Place(store=str(tmp_path_factory.mktemp("tried") / "store"))
    objects = Objects.open(place.store)
    chosen = prepare(selection, seed=0)
    assert chosen is not None
    report = selection.report
    parts = {
        HEAD: encode(selection.head),
        HEAD_ONNX: to_onnx(selection.head),
        REPORT: msgspec.json.encode(report),
    }
    manifest = Manifest(
        "m", "a", "c", "minilm", "0" * 32, tuple(map(Label, train.classes)), (), 0, datetime.now(UTC)
    )
    ref = write_version(objects, manifest, parts)
    ideal = np.eye(32, dtype=np.float32)[train.labels]
    features = train.features["pooled"].astype(np.float32)
    key = chosen.write(objects, FOLDER)
    return Tried(place, objects, chosen, key, Made(manifest=ref, report=report), features, ideal)


def read(tried: Tried, result: Made) -> tuple[Manifest, Report]:
    return read_manifest(tried.objects, result.manifest), result.report


def test_what_is_better_beyond_noise_is_kept(tried):
    result = tried.tuning("partial", 0.9, tried.frozen)
    manifest, report = read(tried, result)
    assert (result.kept, report.tuning.kept, report.method, manifest.below) == (True, True, "partial", 4)
    assert report.tuning.frozen_log_loss - report.tuning.tuned_log_loss > 2 * report.tuning.gain_error
    assert read_part(tried.objects, result.manifest, manifest, TOP) == b"partial"
    assert report.accuracy > tried.frozen.report.accuracy


def test_what_is_as_good_is_not_kept_and_the_frozen_head_stays(tried):
    result = tried.tuning("partial", 0.0, tried.frozen)
    manifest, report = read(tried, result)
    before, _ = read(tried, tried.frozen)
    assert (result.kept, report.tuning.kept, report.method, manifest.below) == (False, False, "frozen", 0)
    assert report.tuning.measured > 0
    assert {name: manifest.parts[name] for name in (HEAD, HEAD_ONNX)} == {
        name: before.parts[name] for name in (HEAD, HEAD_ONNX)
    }
    assert TOP not in manifest.parts


def gains(count: int, mean: float, deviation: float) -> np.ndarray:
    """By how much the loss of so many examples falls, with exactly this mean and standard deviation."""
    values = np.random.default_rng(0).normal(size=count)
    values = (values - values.mean()) / values.std(ddof=1)
    return mean + deviation * values


def is_two_errors_above_0(found: np.ndarray) -> bool:
    mean, variance = mean_and_variance(found, np.ones(len(found)))
    return mean > STANDARD_ERRORS * np.sqrt(variance)


@pytest.mark.parametrize(
    ("count", "mean", "kept"),
    [
        (40, 0.1, False),
        (40, 0.8, True),
        (200, 0.1, True),
        (1_815, 0.138, True),  # all layers of GoEmotions
    ],
)
def test_a_gain_on_few_examples_is_kept_only_if_one_bad_example_more_would_not_take_it_away(
    count, mean, kept
):
    found = gains(count, mean, deviation=0.2 if count < 1_000 else 1.0)
    assert is_two_errors_above_0(found)
    assert is_beyond_noise(found, np.ones(count), classes=10) == kept


def test_a_gain_of_a_single_example_is_noise():
    assert is_two_errors_above_0(np.array([5.0]))
    assert not is_beyond_noise(np.array([5.0]), np.ones(1), classes=3)


def test_a_tuning_with_rare_mistakes_that_few_examples_do_not_show_is_seldom_kept():
    # Surer by 0.1 nats everywhere, and wrong by 5 in 1 of 50: it gains nothing.
    generator = np.random.default_rng(0)

    def draw() -> np.ndarray:
        return np.where(generator.random(40) < 0.02, -5.0, generator.normal(0.1, 0.1, 40))

    draws = [draw() for _ in range(300)]
    assert np.mean([is_two_errors_above_0(it) for it in draws]) > 0.3
    assert np.mean([is_beyond_noise(it, np.ones(40), classes=10) for it in draws]) < 0.01


def test_a_tuning_is_measured_at_a_temperature_that_its_measuring_examples_had_no_say_in(tried):
    kept = tried.chosen
    measured = np.flatnonzero(kept.part == Part.MEASURE)
    found = []
    for name, odd in (("partial", measured[:0]), ("full", measured[:1])):
        ideal = tried.ideal.copy()
        ideal[odd] = np.roll(ideal[odd], 1, axis=1)  # surely wrong
        finished = replace(tried, ideal=ideal).tuning(name, 0.9, tried.frozen, auto=False)
        found.append(read_probabilities(tried.objects, finished.measured))
    np.testing.assert_allclose(found[0][1:], found[1][1:], atol=1e-3)
    assert np.abs(found[0][0] - found[1][0]).max() > 0.5


def test_a_tuned_head_is_calibrated_and_tells_what_is_unlike_its_examples(tried):
    result = tried.tuning("partial", 0.9, tried.frozen)
    manifest, _ = read(tried, result)
    head = decode(read_part(tried.objects, result.manifest, manifest, HEAD))
    kept, features = tried.chosen, tried.tuned_features(0.9).astype(np.float32)
    held_out = kept.part != Part.TRAIN
    found = head.scores(features[held_out])
    right = found.probabilities.argmax(axis=1) == kept.labels[held_out]
    assert found.probabilities.max(axis=1).mean() == pytest.approx(right.mean(), abs=0.05)
    directions = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    strange = head.scores(directions / np.linalg.norm(directions, axis=1, keepdims=True))
    assert (found.novelty > ABSTAIN_ABOVE).mean() < 0.15
    assert (strange.novelty > ABSTAIN_ABOVE).mean() > 0.9


def test_without_auto_what_was_asked_for_is_kept_with_a_warning(tried):
    result = tried.tuning("partial", 0.0, tried.frozen, auto=False)
    _, report = read(tried, result)
    assert result.kept
    worse = report.tuning.tuned_log_loss >= report.tuning.frozen_log_loss
    assert any("auto would not have kept it" in it for it in report.warnings) == worse


def test_all_layers_have_to_be_better_than_the_upper_ones(tried):
    partial = tried.tuning("partial", 0.9, tried.frozen)
    result = tried.tuning("full", 0.9, partial)
    manifest, report = read(tried, result)
    assert (result.kept, report.method, manifest.below) == (False, "partial", 4)
    assert (report.tuning.method, report.tuning.kept) == ("partial", True)
    assert [(it.method, it.kept) for it in report.other_tunings] == [("full", False)]
    assert read_part(tried.objects, result.manifest, manifest, TOP) == b"partial"


def test_all_layers_take_the_place_of_the_upper_ones_if_they_are_better(tried):
    partial = tried.tuning("partial", 0.3, tried.frozen)
    result = tried.tuning("full", 0.95, partial)
    manifest, report = read(tried, result)
    assert partial.kept
    assert (result.kept, report.method, manifest.below) == (True, "full", 0)
    assert (report.tuning.method, [it.method for it in report.other_tunings]) == ("full", ["partial"])
    assert report.tuning.frozen_log_loss == pytest.approx(report.other_tunings[0].frozen_log_loss)


@pytest.mark.parametrize(
    ("ended", "says"),
    [
        ("failed", "The method full failed"),
        ("no_gain", "improved nothing"),
    ],
)
def test_what_came_to_nothing_is_said_and_what_was_best_stays(tried, ended, says):
    partial = tried.tuning("partial", 0.9, tried.frozen)
    result = tried.tuning("full", 0.9, partial, Tuned(ended=ended))
    _, report = read(tried, result)
    assert (result.kept, report.method, report.tuning.method) == (False, "partial", "partial")
    assert any(says in it and "The partial version serves" in it for it in report.warnings)


def test_a_budget_in_which_nothing_could_be_tried_asks_for_a_longer_one_and_warns_of_nothing(tried):
    _, report = read(tried, tried.tuning("full", 0.9, tried.frozen, Tuned(ended="no_time")))
    (time,) = [it for it in report.advice if it.kind == "time"]
    assert time.text.startswith("time_budget is too short for tuning all layers")
    assert not any("time_budget" in it for it in report.warnings)
    assert not [it for it in report.advice if it.kind == "backbone"]  # nothing is known of tuning yet


def test_where_neither_labels_nor_tuning_help_another_backbone_is_advised(tried):
    """The frozen features are nearly all noise, and so are the tuned ones: nothing has been gained."""
    result = tried.tuning("full", 0.0, tried.frozen)
    _, report = read(tried, result)
    assert (result.kept, report.learning_curve is not None) == (False, True)
    flat = dataclasses.replace(report, advice=())
    assert [it.kind for it in advised(flat, tried=report.tuning).advice] == ["backbone"]
    assert "tuning gained nothing beyond noise" in advised(flat, tried=report.tuning).advice[0].text
    better = tried.tuning("full", 0.9, tried.frozen).report
    assert better.tuning.kept
    assert not [it for it in better.advice if it.kind == "backbone"]


def test_an_adapter_that_is_no_worse_is_kept_instead_of_the_tuned_graph(tried):
    result = tried.tuning("partial", 0.6, tried.frozen, low=0.59)
    manifest, report = read(tried, result)
    assert result.kept
    assert ADAPTER in manifest.parts
    assert TOP not in manifest.parts
    assert read_part(tried.objects, result.manifest, manifest, ADAPTER) == b"low"
    assert (report.tuning.rank, report.tuning.bytes, report.tuning.full_bytes) == (
        8,
        len("low"),
        len("partial"),
    )
    assert 0 < report.tuning.own_share < 2 / 6
    further = tried.tuning("full", 0.0, result)
    assert ADAPTER in read(tried, further)[0].parts  # what comes to nothing leaves it as it is


def test_an_adapter_that_is_worse_is_not_kept(tried):
    result = tried.tuning("partial", 0.6, tried.frozen, low=0.2)
    manifest, report = read(tried, result)
    assert result.kept
    assert ADAPTER not in manifest.parts
    assert read_part(tried.objects, result.manifest, manifest, TOP) == b"partial"
    assert (report.tuning.rank, report.tuning.bytes, report.tuning.full_bytes) == (0, len("partial"), 0)


def test_a_class_that_would_be_held_out_whole_is_tuned_on(make_set):
    kept = prepare(select_single_label(make_set((100, 100, 1), noise=2.0), seed=0), seed=0)
    assert kept.part[kept.labels == 2].tolist() == [Part.TRAIN]
    assert set(kept.part) == {Part.TRAIN, Part.STOP, Part.MEASURE}
    assert kept.head[0].shape == (32, 3)


def test_groups_and_duplicates_are_held_out_together(make_set):
    train = make_set((100, 100), noise=2.0, groups=np.repeat(np.arange(40), 5).astype(np.int64))
    kept = prepare(select_single_label(train, seed=0), seed=0)
    for group in range(40):
        assert len(set(kept.part[train.groups == group])) == 1


def test_the_frozen_head_is_measured_on_what_neither_it_nor_the_tuning_saw(make_set):
    train = make_set((100, 100), noise=2.0)
    selection = select_single_label(train, seed=0)
    kept = prepare(selection, seed=0)
    measured = kept.part == Part.MEASURE
    np.testing.assert_array_equal(kept.frozen, selection.out_of_fold[measured])
    assert len(kept.frozen) == measured.sum() == len(examples_of(train, np.arange(200), 0).rows) // 10


def test_what_a_tuning_is_given_reads_back_and_names_its_examples_in_plain_bytes(tried):
    found = TuningSet.read(tried.objects, tried.key)
    assert found.ids == tried.chosen.ids
    for name in ("labels", "weights", "part", "validation", "frozen"):
        np.testing.assert_array_equal(getattr(found, name), getattr(tried.chosen, name))
    # So that whoever looks for an id in the store, byte by byte, finds it.
    assert tried.chosen.ids[0].encode() in tried.objects.get(tried.key)
