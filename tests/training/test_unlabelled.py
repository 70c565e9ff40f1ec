"""Examples without a target: what selection learns from them, when it does not, and what the report says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graft_server.domain.report import Report, UnlabelledReport
from graft_server.domain.views import POOLED
from graft_server.evaluation import figures
from graft_server.heads import decode, encode
from graft_server.heads.graph import to_onnx
from graft_server.heads.graph_parity import check_parity
from graft_server.training.examples.folded import examples_of
from graft_server.training.examples.training_set import ClassifiedSet
from graft_server.training.reporting.unlabelled import with_strangers
from graft_server.training.search.candidates import LogisticTrials, Measure, settled
from graft_server.training.search.search import Search
from graft_server.training.search.self_training import WAYS, Students, Way
from graft_server.training.tasks.single_label.selection import select_single_label

MakeSet = Callable[..., ClassifiedSet]
NOISE = 1.1
CLASSES = 6


def pool(make_set: MakeSet, count: int = 100, seed: int = 7) -> dict[str, np.ndarray]:
    """Features of unlabelled inputs, as many of each class, mixed."""
    rows = make_set([count] * CLASSES, noise=NOISE, seed=seed).features[POOLED]
    return {POOLED: rows[np.random.default_rng(0).permutation(len(rows))]}


def test_unlabelled_examples_are_learned_from_where_that_lowers_the_loss_on_others_too(
    make_set: MakeSet,
) -> None:
    train = make_set([5] * CLASSES, noise=NOISE)
    alone = select_single_label(train, seed=0)
    taught = select_single_label(replace(train, unlabelled=pool(make_set)), seed=0)
    found = taught.report.unlabelled
    assert found is not None
    assert found.kept
    assert (found.used, found.weight) == (CLASSES * 100, 0.3)
    assert found.log_loss_after < found.log_loss_before
    assert taught.head.kind == f"{alone.head.kind}+self-trained"
    assert taught.report.head.settings["unlabelled"] == CLASSES * 100
    fresh = make_set([200] * CLASSES, noise=NOISE, seed=8)
    features, weights = fresh.features[POOLED].astype(np.float32), np.ones(len(fresh))

    def loss(selection):
        return figures.log_loss(selection.head.scores(features).probabilities, fresh.labels, weights)

    assert loss(taught) < loss(alone)
    # What is unfamiliar is told as before, and the head is stored and exported as any other.
    np.testing.assert_array_equal(taught.head.scores(features).novelty, alone.head.scores(features).novelty)
    check_parity(decode(encode(taught.head)), to_onnx(taught.head), features)


def test_the_same_seed_gives_the_same_head_with_unlabelled_examples(make_set: MakeSet) -> None:
    train = make_set([5] * CLASSES, noise=NOISE, unlabelled=pool(make_set))
    one, other = (encode(select_single_label(train, seed=3).head) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("seed", range(3))
def test_guesses_of_a_head_of_labels_by_chance_are_not_learned_from(make_set: MakeSet, seed: int) -> None:
    train = make_set([8] * CLASSES, noise=NOISE, unlabelled=pool(make_set))
    chance = replace(train, labels=np.random.default_rng(seed).permutation(train.labels))
    selection = select_single_label(chance, seed=0)
    found = selection.report.unlabelled
    assert found is not None
    assert (found.used, found.kept) == (CLASSES * 100, False)
    assert "self-trained" not in selection.head.kind


def test_few_unlabelled_examples_are_not_tried(make_set: MakeSet) -> None:
    few = {POOLED: pool(make_set)[POOLED][:99]}
    train = make_set([5] * CLASSES, noise=NOISE, unlabelled=few)
    assert select_single_label(train, seed=0).report.unlabelled is None


@pytest.mark.parametrize("way", WAYS)
def test_the_answer_for_a_held_out_example_does_not_depend_on_its_label(make_set: MakeSet, way: Way) -> None:
    train = make_set([6] * CLASSES, noise=NOISE)
    unlabelled = pool(make_set)[POOLED]
    examples = examples_of(train, np.arange(len(train)), 0)
    problem, measure = Search(examples).problem(POOLED, False, np.arange(len(train)))
    held_out = problem.fold_of == 0
    # The temperature is of all held-out examples: one number, which is left at 1 here.
    nothing = Measure(np.zeros(len(train), bool), measure.labels, measure.weights)

    def answers(labels):
        told = replace(problem, labels=labels)
        teacher = settled(LogisticTrials(told, nothing).trial(30.0))
        return Students(teacher, unlabelled, nothing, 30.0).alone(way).logits

    others = np.where(held_out, (problem.labels + 1) % CLASSES, problem.labels).astype(np.int32)
    before, after = answers(problem.labels), answers(others)
    # Folds are fitted side by side until all have converged, so the others' labels tell how far: no more than that.
    np.testing.assert_allclose(before[held_out], after[held_out], atol=0.05)
    assert np.abs(before[~held_out] - after[~held_out]).max() > 0.5


def strangers(make_set: MakeSet, unlabelled: np.ndarray) -> Report:
    train = make_set([20] * CLASSES)
    selection = select_single_label(train, seed=0)
    told = replace(train, unlabelled={POOLED: unlabelled.astype(np.float16)})
    return with_strangers(selection.report, selection.head, told, len(unlabelled) + 5)


def test_inputs_like_the_labelled_ones_are_no_strangers(make_set: MakeSet) -> None:
    rows = make_set([50] * CLASSES, seed=4).features[POOLED]
    report = strangers(make_set, rows[np.random.default_rng(0).permutation(len(rows))])
    found = report.unlabelled
    assert found is not None
    assert (found.examples, found.used) == (305, 0)
    assert 0 < found.novel_share < 0.12
    assert abs(found.drift) < 0.1
    assert not any("unlabelled" in it for it in report.warnings)


def test_a_pool_that_is_unlike_anything_labelled_is_warned_of_with_what_to_do(make_set: MakeSet) -> None:
    rows = make_set([50] * CLASSES, seed=4).features[POOLED]
    foreign = np.random.default_rng(1).standard_normal((150, rows.shape[1]))
    foreign /= np.linalg.norm(foreign, axis=1, keepdims=True)
    mixed = np.concatenate([rows, foreign])
    report = strangers(make_set, mixed)
    found = report.unlabelled
    assert found is not None
    assert 0.2 < found.novel_share < 0.5
    assert found.drift > 0.3  # all foreign ones are among the newer half
    (novel,) = [it for it in report.warnings if "unlike anything labelled, where" in it]
    assert novel.startswith(
        f"{found.novel_share:.0%} of 450 unlabelled examples are unlike anything labelled"
    )
    assert "graft next" in novel
    assert any(it.startswith("What comes in is changing") for it in report.warnings)


def test_a_report_without_unlabelled_examples_says_nothing_of_them(make_set: MakeSet) -> None:
    train = make_set([20] * CLASSES)
    selection = select_single_label(train, seed=0)
    assert with_strangers(selection.report, selection.head, train, 0).unlabelled is None
    assert UnlabelledReport(0).kept is False
