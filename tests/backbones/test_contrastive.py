"""The contrastive loss, and the batches that it is computed on."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from graft_server.backbones.torch.tuning import contrastive  # noqa: E402 - needs torch


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def by_hand(features: torch.Tensor, labels: list[int], weights: list[float]) -> float:
    """Khosla et al. 2020, equation 2, term by term."""
    total, whole = 0.0, 0.0
    for i, label in enumerate(labels):
        others = [j for j in range(len(labels)) if j != i]
        alike = [j for j in others if labels[j] == label]
        if not alike or len(alike) == len(others):
            continue
        near = {j: float(torch.exp(features[i] @ features[j] / contrastive.TEMPERATURE)) for j in others}
        own = -np.mean([np.log(near[j] / sum(near.values())) for j in alike])
        total, whole = total + weights[i] * own, whole + weights[i]
    return total / whole


def test_the_loss_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(9, 5, generator=generator), dim=1)
    labels, weights = [0, 0, 1, 1, 1, 2, 2, 0, 3], [1.0, 2.0, 0.5, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0]
    found = contrastive.loss(features, torch.tensor(labels), torch.tensor(weights))
    assert float(found) == pytest.approx(by_hand(features, labels, weights), rel=1e-5)
    found = contrastive.loss(features, torch.tensor(labels))
    assert float(found) == pytest.approx(by_hand(features, labels, [1.0] * 9), rel=1e-5)


def test_descent_draws_a_class_together_and_classes_apart() -> None:
    generator = torch.Generator().manual_seed(1)
    free = torch.randn(12, 8, generator=generator, requires_grad=True)
    labels = torch.arange(12) % 3

    def nearness() -> tuple[float, float]:
        features = torch.nn.functional.normalize(free.detach(), dim=1)
        cosines, alike = features @ features.T, labels[:, None] == labels[None]
        within = alike & ~torch.eye(12, dtype=torch.bool)
        return float(cosines[within].mean()), float(cosines[~alike].mean())

    before = nearness()
    optimizer = torch.optim.Adam([free], lr=0.2)
    for _ in range(100):
        optimizer.zero_grad()
        contrastive.loss(torch.nn.functional.normalize(free, dim=1), labels).backward()
        optimizer.step()
    within, between = nearness()
    assert within > 0.8 > before[0]
    assert between < -0.3 < before[1]


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [2, 2, 2, 2]], ids=["no two alike", "all alike"])
def test_a_batch_that_has_nothing_to_compare_teaches_nothing(labels: list[int]) -> None:
    features = unit([[1, 0], [0, 1], [1, 1], [-1, 1]]).requires_grad_()
    loss = contrastive.loss(features, torch.tensor(labels))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert features.grad is not None
    assert float(features.grad.abs().max()) == 0.0


def test_inputs_that_are_all_the_same_have_a_finite_loss() -> None:
    features = unit([[1, 0]] * 6).requires_grad_()
    loss = contrastive.loss(features, torch.tensor([0, 0, 0, 1, 1, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log(5), rel=1e-5)
    assert features.grad is not None
    assert bool(torch.isfinite(features.grad).all())


def test_rare_classes_are_seen_as_often_as_frequent_ones() -> None:
    labels = np.repeat(np.arange(3, dtype=np.int32), [2, 10, 200])
    rows = np.arange(212)
    made = contrastive.batches(labels, rows, steps=30, seed=5)
    seen = np.bincount(np.concatenate(made), minlength=212)
    each = contrastive.EACH
    for batch in made:
        assert len(set(batch.tolist())) == len(batch)
        assert np.bincount(labels[batch]).tolist() == [2, each, each]
    assert seen[:2].tolist() == [30, 30]
    assert set(seen[2:12].tolist()) <= {30 * each // 10, 30 * each // 10 + 1}
    assert set(seen[12:].tolist()) <= {30 * each // 200, 30 * each // 200 + 1}


def test_many_classes_take_turns_and_names_are_dealt_like_examples() -> None:
    labels = np.repeat(np.arange(20, dtype=np.int32), 6)
    names = 120 + np.arange(20)
    known = np.append(labels, np.arange(20, dtype=np.int32))
    made = contrastive.batches(known, np.arange(120), steps=35, seed=0, names=names)
    seen, drawn = np.bincount(np.concatenate(made), minlength=140), np.zeros(20, np.int64)
    for batch in made:
        present, each = np.unique(known[batch], return_counts=True)
        assert len(present) == contrastive.CLASSES
        assert (each == contrastive.EACH).all()
        drawn[present] += 1
    assert set(drawn.tolist()) == {14}  # 35 batches of 8 classes of 20
    assert set(seen.tolist()) == {8}  # 14 times four of seven


def test_batches_are_of_the_given_rows_and_depend_on_the_seed_alone() -> None:
    labels = np.arange(60, dtype=np.int32) % 4
    rows = np.flatnonzero(np.arange(60) % 5 != 0)
    one, again, other = (contrastive.batches(labels, rows, steps=6, seed=it) for it in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert set(np.concatenate(one).tolist()) <= set(rows.tolist())


def test_a_class_with_one_example_is_in_batches_too() -> None:
    made = contrastive.batches(np.array([0, 1, 1, 1], np.int32), np.arange(4), steps=3, seed=0)
    assert all(0 in batch for batch in made)
