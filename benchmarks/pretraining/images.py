"""ResNets, pre-trained to tell what a picture shows and which way up it is.

A network that tells six things apart needs to see little of each. Which way up a picture is takes seeing its parts (Lee
2020: labels augmented by self-supervision), of which other things are made too.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import ResNetConfig, ResNetModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from benchmarks.datasets import DATA
from benchmarks.pretraining.training import Batches, fit
from graft_server.backbones.decoding.images import ImageRecipe

FASHION_EDGE, GROCERY_EDGE = 32, 64
"""Pixels of each side of what the ResNets read."""
FASHION = {"fashion": range(6, 10), "fashion-tops": range(4)}
"""Checkpoints, and the four classes of Fashion-MNIST that each never sees."""
FASHION_EPOCHS, GROCERY_EPOCHS = 10, 60
RATE = 3e-3

Pixels = NDArray[np.float32]
Change = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Photo:
    """Of a grocery product."""

    data: bytes
    """The JPEG file."""
    product: int


def fashion(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 28, 28) and their classes, 0 to 9; `split` is "train" or "t10k"."""
    folder = DATA / "fashion_mnist"
    with gzip.open(folder / f"{split}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / f"{split}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)


def groceries(split: str) -> list[Photo]:
    """Photographs of 81 products; `split` is "train" or "test"."""
    folder = DATA / "grocery_store_subset" / "dataset"
    lines = (folder / f"{split}_subset.txt").read_text().splitlines()
    rows = [[it.strip() for it in line.split(",")] for line in lines if line.strip()]
    return [Photo((folder / row[0]).read_bytes(), int(row[1])) for row in rows]


def is_pretrained(product: int) -> bool:
    """Whether a grocery product is one that the ResNet is pre-trained on: every other one."""
    return product % 2 == 0


def resnet() -> ResNetModel:
    """An untrained one of 1.3 million weights."""
    config = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[1, 1, 1, 1], layer_type="basic"
    )
    return ResNetModel(config)


def processor(edge: int) -> Any:
    """What makes pixels of images."""
    return ViTImageProcessorPil(size={"height": edge, "width": edge})


def pixels(pictures: Sequence[Image.Image], edge: int) -> Pixels:
    """What a ResNet reads of images, (n, 3, edge, edge)."""
    recipe = ImageRecipe.of_config(processor(edge).to_dict())
    return recipe.normalised([recipe.pixels(it.convert("RGB")) for it in pictures])


def opened(photos: Sequence[Photo]) -> list[Image.Image]:
    """Of photographs."""
    return [Image.open(io.BytesIO(it.data)) for it in photos]


class Classifier(torch.nn.Module):
    """A ResNet with a linear layer on what it pools."""

    def __init__(self, model: Any, classes: int) -> None:
        super().__init__()
        self.model = model
        self.head = torch.nn.Linear(model.config.hidden_sizes[-1], classes)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Logits of images."""
        logits: torch.Tensor = self.head(self.model(values).pooler_output.flatten(1))
        return logits


def seen_otherwise(images: torch.Tensor) -> torch.Tensor:
    """Each mirrored by chance, nearer, wider, turned a little, aside and paler, and half of them partly hidden.

    What tells the classes of pre-training apart is then more than where a few pixels are.
    """
    count, _, edge, _ = images.shape
    size, wider, turn, contrast = (
        torch.empty(count).uniform_(*bounds) for bounds in ((0.55, 1.1), (0.8, 1.25), (-0.2, 0.2), (0.6, 1.3))
    )
    mirrored = torch.randint(0, 2, (count,)) * 2 - 1
    across, down = size * wider.sqrt(), size / wider.sqrt()
    aside = torch.empty(count, 2, 1).uniform_(-0.25, 0.25)
    cos, sin = turn.cos(), turn.sin()
    turned = torch.stack([across * cos * mirrored, -down * sin, across * sin * mirrored, down * cos], 1)
    moved = torch.cat([turned.reshape(count, 2, 2), aside], 2)
    grid = torch.nn.functional.affine_grid(moved, list(images.shape), align_corners=False)
    seen = torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    seen = ((seen + 1) * contrast[:, None, None, None] - 1).clamp(max=1.6)
    hidden = round(0.35 * edge)
    for row in (torch.rand(count) < 0.5).nonzero().flatten().tolist():
        top, left = torch.randint(0, edge - hidden, (2,)).tolist()
        seen[row, :, top : top + hidden, left : left + hidden] = 2 * torch.rand(()) - 1
    return seen


def turned(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A quarter of the images each way up, and labels that tell which: 4 times as many."""
    quarters = enumerate(zip(images.chunk(4), labels.chunk(4), strict=True))
    ways = [(torch.rot90(part, turn, (2, 3)), 4 * label + turn) for turn, (part, label) in quarters]
    return torch.cat([it for it, _ in ways]), torch.cat([it for _, it in ways])


def batches(values: Pixels, labels: NDArray[np.int64], size: int, *, turn: bool = False) -> Batches:
    """Shuffled batches of changed images; one image alone is left out: batch normalisation can make nothing of it."""

    def epoch() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for rows in torch.randperm(len(labels)).split(size):
            if len(rows) > 3:
                made = seen_otherwise(torch.from_numpy(values[rows])), torch.from_numpy(labels[rows])
                yield turned(*made) if turn else made

    return epoch


def pretrain_fashion(folder: Path) -> None:
    """Writes FOLDER as a checkpoint that has seen all images of six classes: see FASHION, which knows its name."""
    images, labels = fashion("train")
    rows = np.flatnonzero(~np.isin(labels, FASHION[folder.name]))
    values = pixels([Image.fromarray(it) for it in images[rows]], FASHION_EDGE)
    _, known = np.unique(labels[rows], return_inverse=True)
    _pretrain(folder, values, known, FASHION_EDGE, epochs=FASHION_EPOCHS, size=128)


def pretrain_groceries(folder: Path) -> None:
    """Writes FOLDER as a checkpoint that has seen every other product."""
    photos = [it for it in groceries("train") if is_pretrained(it.product)]
    _, labels = np.unique([it.product for it in photos], return_inverse=True)
    _pretrain(
        folder, pixels(opened(photos), GROCERY_EDGE), labels, GROCERY_EDGE, epochs=GROCERY_EPOCHS, size=64
    )


def _pretrain(
    folder: Path, values: Pixels, labels: NDArray[np.int64], edge: int, *, epochs: int, size: int
) -> None:
    classifier = Classifier(resnet(), 4 * (int(labels.max()) + 1))
    fit(
        classifier, batches(values, labels, size, turn=True), torch.nn.functional.cross_entropy,
        steps=-(-len(labels) // size), epochs=epochs, rate=RATE, state=folder / "unfinished.pt",
    )  # fmt: skip
    classifier.model.save_pretrained(folder)
    processor(edge).save_pretrained(folder)
