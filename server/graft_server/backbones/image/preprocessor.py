"""Backbones that read images: their description, and the preparation of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from graft_server.backbones.backbone import Backbone
from graft_server.backbones.checkpoint import Checkpoint, Described
from graft_server.backbones.decoding.images import ImageError, ImageRecipe
from graft_server.backbones.decoding.limits import MediaLimits
from graft_server.backbones.image.class_names import MAX_TOKENS
from graft_server.backbones.preprocessing import Arrays, Budgets, Prepared, each_alone, wrong_modality
from graft_server.domain.errors import BackboneError, InvalidError
from graft_server.domain.examples import Input, Kind, Modality

Pixels = NDArray[np.uint8]

GRAPH_RECIPE, CONVOLUTIONAL_RECIPE = "images/1", "images/2"
"""Names how the encoder's graph is made. Change one whenever the same weights would give other features."""

PREPROCESSOR = "preprocessor_config.json"
LEAST_STAGES = 2
"""Of a convolutional encoder."""


def describe_convolutional(checkpoint: Checkpoint) -> Described:
    """Describes a ResNet or ConvNeXt from its files. Raises BackboneError."""
    config = checkpoint.config
    sizes = config.get("hidden_sizes") or (256, 512, 1024, 2048)
    if len(sizes) < LEAST_STAGES:
        raise BackboneError(
            f"Backbone {checkpoint.name}: hidden_sizes of its config.json has {len(sizes)} stage, and views are made "
            f"of the last {LEAST_STAGES}. Give a checkpoint with more.",
            reason="BACKBONE_ARCHITECTURE_UNSUPPORTED",
        )
    return _described(checkpoint, len(sizes), int(sizes[-1]), "mean", graph=CONVOLUTIONAL_RECIPE)


def describe_transformer(checkpoint: Checkpoint) -> Described:
    """Describes a ViT or DINOv2 from its files. Raises BackboneError."""
    config = checkpoint.config
    layers, dimension = int(config.get("num_hidden_layers", 12)), int(config.get("hidden_size", 768))
    return _described(checkpoint, layers, dimension, "cls")


def describe_clip(checkpoint: Checkpoint) -> Described:
    """Describes a CLIP from its files. Raises BackboneError."""
    config = checkpoint.config
    vision = config.get("vision_config") or config
    dimension = int(config.get("projection_dim") or vision.get("projection_dim") or 512)
    names = {"names": checkpoint.digest("tokenizer.json")} if checkpoint.architecture == "clip" else {}
    layers = int(vision.get("num_hidden_layers", 12))
    described = _described(checkpoint, layers, dimension, "projection", **names)
    text = config.get("text_config") or {}
    return replace(described, max_tokens=int(text.get("max_position_embeddings", MAX_TOKENS)) if names else 0)


def _described(checkpoint: Checkpoint, layers: int, dimension: int, pooling: str, **more: str) -> Described:
    recipe_of(checkpoint)
    return Described(
        layers=layers,
        dimension=dimension,
        pooling=pooling,
        identity={
            "preprocessing": checkpoint.digest(PREPROCESSOR),
            "pooling": pooling,
            "graph": GRAPH_RECIPE,
            **more,
        },
    )


def recipe_of(checkpoint: Checkpoint) -> ImageRecipe:
    """Returns a checkpoint's preparation of images. Raises BackboneError."""
    try:
        return ImageRecipe.of_config(checkpoint.json(PREPROCESSOR))
    except ImageError as error:
        raise BackboneError(f"Backbone {checkpoint.name}: {error}", reason=error.reason) from error


def preprocessor(backbone: Backbone) -> ImagePreprocessor:
    """Returns a backbone's preprocessor of images. Raises BackboneError."""
    return ImagePreprocessor(recipe_of(Checkpoint(backbone.name, backbone.folder)))


class ImagePreprocessor:
    """Images to pixels. See `preprocessing.Preprocessor`.

    An item is an image's pixels, still as bytes: a quarter of the encoder's input, while it waits. All have the
    same length, that of their edge, so a batch is as many images as its budget says.

    Attributes:
        recipe: How images are resized, cropped and normalised.
    """

    modality = Modality.IMAGE
    kinds = frozenset({Kind.IMAGE})
    always_reads = False
    warnings: tuple[str, ...] = ()
    longest = ""

    def __init__(self, recipe: ImageRecipe, limits: MediaLimits | None = None) -> None:
        self.recipe = recipe
        self._limits = (limits or MediaLimits()).image
        edge = recipe.shape[0]
        self.budgets = Budgets(
            cpu=tuple(edge * images for images in (2, 1, 4, 8)),
            gpu=tuple(edge * images for images in (64, 32, 128, 256)),
        )

    def within(self, limits: MediaLimits) -> ImagePreprocessor:
        """The same, with other limits."""
        return ImagePreprocessor(self.recipe, limits)

    def prepare(self, value: Input) -> Prepared:
        """Decodes an image: 1 to 3 ms for a photograph of 0.2 million pixels."""
        if value.kind is not Kind.IMAGE:
            raise wrong_modality(value.kind, self.modality, self.kinds)
        try:
            return Prepared(self.recipe.item(value.data, self._limits))
        except ImageError as error:
            raise InvalidError(str(error), reason=error.reason, field="image") from error

    def many(self, inputs: Sequence[Input]) -> list[Prepared | InvalidError]:
        """Decodes several."""
        return each_alone(self.prepare, inputs)

    def quick(self, inputs: Sequence[Input]) -> bool:  # noqa: ARG002
        """Never: a file may be anything."""
        return False

    def collate(self, items: Sequence[Pixels]) -> Arrays:
        """The batch that the graph reads."""
        return self.recipe.collate(items)

    def price(self, count: int, total: int, longest: int) -> float:  # noqa: ARG002
        """Every image costs the same."""
        return float(total)

    def made_up(self, generator: np.random.Generator, length: int) -> Pixels:  # noqa: ARG002
        """Noise. All images have one length."""
        pixels: Pixels = generator.integers(0, 256, (*self.recipe.shape, 3), dtype=np.uint8)
        return pixels

    def typical(self, generator: np.random.Generator) -> Pixels:
        """Noise: how long an encoder takes does not depend on what it sees."""
        return self.made_up(generator, len(self.shortest()))

    def shortest(self) -> Pixels:
        """A black image."""
        return np.zeros((*self.recipe.shape, 3), np.uint8)
